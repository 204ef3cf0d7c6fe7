"""The Triton kernel of bounded attention."""

import pytest
from model_helpers import LENGTHS, NORM_WEIGHTS, check_bounded_kernel, check_kernel_for_any_logit


@pytest.mark.gpu
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads, capability, monkeypatch):
    """With the tiles of other cards too, which are correct on any."""
    from kandinsky.model import triton_attention

    rows = triton_attention.rows_on(capability)
    monkeypatch.setattr(triton_attention, "rows_on", lambda _capability: rows)

    check_bounded_kernel(triton_attention.launch, tokens, heads)


@pytest.mark.gpu
@pytest.mark.parametrize(("weight", "outlier"), NORM_WEIGHTS)
def test_the_form_for_any_logit_is_exact(weight, outlier):
    from kandinsky.model import triton_attention

    check_kernel_for_any_logit(triton_attention.launch_any, weight, outlier)
