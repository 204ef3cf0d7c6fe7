"""The Triton kernel of bounded attention."""

import pytest
from model_helpers import LENGTHS, NORM_WEIGHTS, check_bounded_kernel, check_kernel_for_any_logit


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads):
    from kandinsky.model import triton_attention

    check_bounded_kernel(triton_attention.launch, tokens, heads)


@pytest.mark.gpu
@pytest.mark.parametrize(("weight", "outlier"), NORM_WEIGHTS)
def test_the_form_for_any_logit_is_exact(weight, outlier):
    from kandinsky.model import triton_attention

    check_kernel_for_any_logit(triton_attention.launch_any, weight, outlier)
