"""The Hopper kernel of bounded attention."""

import pytest
import torch
from model_helpers import LENGTHS, NORM_WEIGHTS, check_bounded_kernel, check_kernel_for_any_logit

from kandinsky.model import hopper
from kandinsky.model.nvrtc import source_of


def test_the_source_lies_beside_the_module():
    """What a wheel must hold: the kernel is compiled from it at first use."""
    source = source_of("hopper.cu").decode()
    assert all(name in source for name in ("GROUPS", "KEYS", "STAGES", "ROW_BYTES", "BEHIND", "MODE", "attend"))


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a PyTorch without CUDA")
def test_there_is_no_kernel_without_cuda():
    assert hopper.kernel(0) is None


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    check_bounded_kernel(hopper.launch, tokens, heads)


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
@pytest.mark.parametrize("form", [hopper.launch_shifted, hopper.launch_any])
def test_the_forms_for_larger_logits_are_exact(tokens, heads, form):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    check_bounded_kernel(form, tokens, heads)


@pytest.mark.gpu
@pytest.mark.parametrize(("weight", "outlier"), NORM_WEIGHTS)
def test_it_is_exact_for_any_norms_and_does_again_what_needs_it(weight, outlier):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    check_kernel_for_any_logit(hopper.launch_any, weight, outlier)
    flags = check_kernel_for_any_logit(hopper.launch_shifted, weight, outlier)
    if weight <= 2 and outlier == weight:
        assert flags.sum() == 0
    if weight == 8:
        assert flags.view(4, -1)[0, 0] == 1  # the tile with query 5
