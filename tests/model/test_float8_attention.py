"""8-bit attention: what each block takes, and how far it is from float32."""

import pytest
import torch
from helpers import relative_error
from model_helpers import attention_inputs, oracle, random_norm
from torch import nn

from kandinsky.model import bounded, float8_attention
from kandinsky.model.attention import FLOAT8
from kandinsky.model.bounded import Logits
from kandinsky.model.float8_attention import ERROR

E4M3 = torch.float8_e4m3fn
JUST = ((1, 0.632, 1.548), (1, 0.826, 1.431), (4, 0.718, 1.436), (16, 0.529, 1.297), (64, 0.0, 1.019))
"""Norms that just allow queries and keys in 8 bits: how many channels are large, weight of the others, theirs."""
OTHERS = ((64, 0.0, 0.5), (64, 0.0, 1.0), (64, 0.0, 2.0), (64, 0.0, 4.0), (64, 0.0, 8.0), (1, 1.0, 3.0), (1, 1.0, 6.0))


def norm_with(large: int, weight: float, outlier: float) -> nn.LayerNorm:
    """A LayerNorm with some large channels, each in a pair of its own if there are 32 or less."""
    norm = nn.LayerNorm(64).requires_grad_(False)
    norm.weight.fill_(weight)
    norm.weight[(2 * torch.arange(large) + torch.arange(large) // 32) % 64] = outlier
    return norm


def dtype_of(norm: nn.LayerNorm) -> torch.dtype | None:
    """Of queries and keys, for a block that has this norm twice; None is exact attention."""
    backend = FLOAT8.for_logits(Logits.of(norm, norm))
    if backend.attend_projected is None:
        return None
    assert backend.attend.func is float8_attention.attend
    assert backend.attend_projected.func is float8_attention.attend_projected
    assert backend.attend_projected.keywords == backend.attend.keywords
    return backend.attend.keywords["dtype"]


def test_what_cannot_be_read_is_named():
    block = FLOAT8.for_logits(Logits(12.0, 1.4))
    for attend in (block.attend, lambda qkv: block.attend_projected(qkv, None, None, None, 1.0)):
        with pytest.raises(ValueError, match=r"takes bfloat16 \[tokens, 3, heads, 64\] on a GPU, got torch"):
            attend(torch.zeros(5, 3, 2, 64))


def test_a_block_takes_what_its_norms_allow():
    found = {weight: dtype_of(norm_with(64, 0.0, weight)) for weight in (0.5, 1.0, 2.0, 4.0, 8.0)}
    assert found == {0.5: E4M3, 1.0: E4M3, 2.0: torch.float16, 4.0: torch.float16, 8.0: None}
    assert FLOAT8.for_logits(Logits(1000.0, 100.0)).attend is bounded.attend_any is FLOAT8.attend


def test_norms_that_are_not_numbers_stay_exact():
    assert dtype_of(norm_with(1, 1.0, float("nan"))) is None


@pytest.mark.parametrize(("large", "weight", "outlier"), JUST)
def test_few_large_channels_count_more_than_in_the_mean(large, weight, outlier):
    assert dtype_of(norm_with(large, weight, outlier)) == E4M3
    assert dtype_of(norm_with(large, 1.02 * weight, 1.02 * outlier)) == torch.float16


@pytest.mark.gpu
@pytest.mark.parametrize(("large", "weight", "outlier"), [*JUST, *OTHERS])
@pytest.mark.parametrize("common", [0.0, 1.0])
def test_the_error_is_bounded_whatever_the_norms_are(common, large, weight, outlier):
    """Random values average out to nothing, which leaves their rounding: the worst case."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    norm = norm_with(large, weight, outlier).cuda()
    backend = FLOAT8.for_logits(Logits.of(norm, norm))
    for tokens in (4173, 25_424):  # long rows sum up no worse
        qkv = attention_inputs(tokens, 48)
        qkv[:, :2] *= norm.weight
        qkv[:, 2] += common
        scaled = qkv.clone()
        scaled[:, 0] *= bounded.query_scale(64)
        found = backend.attend(scaled.bfloat16())
        assert found.isfinite().all()
        error = relative_error(found[:256], oracle(qkv, 256))
        assert error < ERROR
        if weight == 0.0 and outlier <= 1 and common:
            assert error < 0.005  # values that do not average out


@pytest.mark.gpu
@pytest.mark.parametrize("spread", [1.0, 3.0])
def test_a_projection_gives_the_same_bits(spread):
    """As one that was normed and turned before, which is what several devices and packed streams do."""
    from kandinsky.model.kernels import norm_rope_

    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    backend = FLOAT8.for_logits(Logits(12.0, spread))
    qkv = torch.randn(1008, 3, 4, 64, device="cuda").bfloat16()
    norms = [random_norm(64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    angles = torch.rand(1008, 32, device="cuda") * 6
    terms = (*norms, torch.stack((angles.cos(), angles.sin()), -1), bounded.query_scale(64))
    found = backend.attend_projected(qkv, *terms)
    assert torch.equal(found, backend.attend(norm_rope_(qkv, *terms)))
