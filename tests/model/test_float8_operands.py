"""Operands of 8-bit attention: against plain PyTorch, and against the kernels that norm and turn without 8 bits."""

import math

import pytest
import torch
from model_helpers import random_norm, stored

SHAPES = [(1, 6), (63, 2), (129, 12), (225, 48), (1008, 24)]
DTYPES = [torch.float16, torch.float8_e4m3fn]
SCALE = math.log2(math.e) / 8


def expected(qkv: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Of normed queries and keys."""
    query, key, value = qkv.float().unbind(1)
    balance = 2 if dtype == torch.float8_e4m3fn else 1
    queries_keys = torch.stack((query * balance, key / balance), 1).to(dtype)
    return queries_keys.float(), stored(value).to(torch.float8_e4m3fn).float()


def projection(tokens: int, heads: int) -> tuple[torch.Tensor, ...]:
    """What is normed and turned: qkv, norms, RoPE."""
    qkv = torch.randn(tokens, 3, heads, 64, device="cuda").bfloat16()
    norms = [random_norm(64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    angles = torch.rand(tokens, 32, device="cuda") * 6
    return qkv, *norms, torch.stack((angles.cos(), angles.sin()), -1)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "heads"), SHAPES)
def test_what_is_normed_already_is_rounded(tokens, heads, dtype):
    from kandinsky.model.float8_operands import operands

    longer = torch.randn(tokens + 7, 3, heads, 64, device="cuda").bfloat16()
    part = longer[3 : 3 + tokens]
    made, wanted = operands(part, dtype=dtype), expected(part, dtype)
    assert torch.equal(made.queries_keys.float(), wanted[0])
    assert torch.equal(made.values.float(), wanted[1])


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "heads"), SHAPES)
def test_a_projection_gives_the_bits_of_one_that_was_normed_before(tokens, heads, dtype):
    """So that a video is the same on one device as with its tokens on several, where norms come before the exchange."""
    from kandinsky.model.float8_operands import norm_rope_operands, operands
    from kandinsky.model.kernels import norm_rope_

    qkv, *terms = projection(tokens, heads)
    untouched = qkv.clone()
    made = norm_rope_operands(qkv, *terms, SCALE, dtype=dtype)
    assert torch.equal(qkv, untouched)
    wanted = operands(norm_rope_(qkv, *terms, SCALE), dtype=dtype)
    assert torch.equal(made.queries_keys.float(), wanted.queries_keys.float())
    assert torch.equal(made.values.float(), wanted.values.float())


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("tokens", "heads"), SHAPES)
def test_each_pair_of_channels_is_rounded_as_often_as_it_should_be(tokens, heads, dtype):
    """Against float64, in units of the length of a pair, which RoPE keeps."""
    from kandinsky.model.float8_operands import norm_rope_operands

    qkv, query_norm, key_norm, rope = projection(tokens, heads)
    made = norm_rope_operands(qkv, query_norm, key_norm, rope, SCALE, dtype=dtype).queries_keys.double()
    balance = 2.0 if dtype == torch.float8_e4m3fn else 1.0
    for part, norm, scale in ((0, query_norm, SCALE * balance), (1, key_norm, 1 / balance)):
        x = qkv[:, part].double()
        normed = torch.nn.functional.layer_norm(x, (64,), norm.weight.double(), norm.bias.double(), norm.eps)
        pairs = torch.view_as_complex(normed.unflatten(-1, (32, 2)))
        turned = pairs * torch.view_as_complex(rope.double())[:, None] * scale
        error = (torch.view_as_complex(made[:, part].unflatten(-1, (32, 2))) - turned).abs()
        # Half a step of bfloat16 twice, at most 2^-8 of a number; then of the dtype, to which float16 adds nothing.
        rounding, smallest = (2 * 2**-8 + 2**-4, 2**-9.5) if dtype == torch.float8_e4m3fn else (2 * 2**-8, 1e-6)
        assert (error <= 1.01 * rounding * turned.abs() + smallest).all()
