"""The Triton kernel of bounded attention."""

import pytest
from model_helpers import LENGTHS, check_bounded_kernel


@pytest.mark.gpu
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
@pytest.mark.parametrize(("tokens", "heads"), LENGTHS)
def test_the_kernel_is_exact(tokens, heads, capability, monkeypatch):
    """With the tiles of other cards too, which are correct on any."""
    from kandinsky.model import triton_attention

    rows = triton_attention.rows_on(capability)
    monkeypatch.setattr(triton_attention, "rows_on", lambda _capability: rows)

    check_bounded_kernel(triton_attention.launch, tokens, heads)
