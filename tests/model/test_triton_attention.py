"""The Triton kernel of bounded attention."""

import pytest
from model_helpers import LENGTHS, check_bounded_kernel


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads):
    from kandinsky.model import triton_attention

    check_bounded_kernel(triton_attention.launch, tokens, heads)
