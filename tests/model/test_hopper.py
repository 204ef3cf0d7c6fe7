"""The Hopper kernel of bounded attention."""

from pathlib import Path

import pytest
import torch
from model_helpers import LENGTHS, check_bounded_kernel

from kandinsky.model import hopper


def test_the_source_lies_beside_the_module():
    """What a wheel must hold: the kernel is compiled from it at first use."""
    source = Path(hopper.__file__).with_suffix(".cu").read_text()
    assert all(name in source for name in ("GROUPS", "KEYS", "STAGES", "attend"))


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a PyTorch without CUDA")
def test_there_is_no_kernel_without_cuda():
    assert hopper.kernel(0) is None


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    check_bounded_kernel(hopper.launch, tokens, heads)
