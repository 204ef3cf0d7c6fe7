"""8-bit attention: which blocks take it, and how far it is from float32."""

import pytest
import torch
from helpers import relative_error
from model_helpers import attention_inputs, oracle
from torch import nn

from kandinsky.model import bounded, float8_attention
from kandinsky.model.attention import FLOAT8
from kandinsky.model.operations import norm_rope


def test_what_cannot_be_read_is_named():
    for attend in (FLOAT8.attend, lambda qkv: FLOAT8.attend_projected(qkv, None, None, None, 1.0)):
        with pytest.raises(ValueError, match=r"takes bfloat16 \[tokens, 3, heads, 64\] on a GPU, got torch"):
            attend(torch.zeros(5, 3, 2, 64))


def test_a_block_with_large_norms_stays_exact():
    norms = {weight: nn.LayerNorm(64) for weight in (1, 2, 4, 8)}
    for weight, norm in norms.items():
        nn.init.constant_(norm.weight, weight)
    fitted = [FLOAT8.for_logits(bounded.logit_bound(norm, norm)) for norm in norms.values()]
    assert [backend.attend for backend in fitted] == [
        float8_attention.attend,
        float8_attention.attend,
        float8_attention.attend,
        bounded.attend_any,
    ]
    assert [backend.attend_projected is not None for backend in fitted] == [True, True, True, False]


@pytest.mark.gpu
@pytest.mark.parametrize(("tokens", "heads"), [(4173, 4), (25_424, 1)])
@pytest.mark.parametrize("common", [0.0, 1.0])
def test_the_error(common, tokens, heads):
    """Random values average out to nothing, which leaves their rounding: the worst case. Long rows sum up no worse."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    qkv = attention_inputs(tokens, heads)
    qkv[:, 2] += common
    scaled = qkv.clone()
    scaled[:, 0] *= bounded.query_scale(64)
    error = relative_error(FLOAT8.attend(scaled.bfloat16()), oracle(qkv))
    assert error < (0.05 if common == 0 else 0.005)


@pytest.mark.gpu
def test_a_projection_gives_the_same():
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    qkv = torch.randn(1008, 3, 4, 64, device="cuda").bfloat16()
    norms = [nn.LayerNorm(64, eps=1e-5, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    angles = torch.rand(1008, 32, device="cuda") * 6
    terms = (*norms, torch.stack((angles.cos(), angles.sin()), -1), bounded.query_scale(64))
    expected = FLOAT8.attend(norm_rope(qkv, *terms))
    assert relative_error(FLOAT8.attend_projected(qkv, *terms), expected) < 0.05
