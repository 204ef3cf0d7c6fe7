"""Operands of 8-bit attention against plain PyTorch."""

import pytest
import torch
from model_helpers import random_norm, stored

from kandinsky.model import operations

SHAPES = [(1, 6), (63, 2), (129, 12), (225, 48), (1008, 24)]
DTYPES = [torch.float16, torch.float8_e4m3fn]


def expected(qkv: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """Of normed queries and keys."""
    query, key, value = qkv.float().unbind(1)
    balance = 2 if dtype == torch.float8_e4m3fn else 1
    queries_keys = torch.stack((query * balance, key / balance), 1).to(dtype)
    return queries_keys.float(), stored(value).to(torch.float8_e4m3fn).float()


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
def test_norms_and_rope_are_those_of_the_operations(tokens, heads, dtype):
    from kandinsky.model.float8_operands import norm_rope_operands

    qkv = torch.randn(tokens, 3, heads, 64, device="cuda").bfloat16()
    norms = [random_norm(64, device="cuda", dtype=torch.bfloat16) for _ in range(2)]
    angles = torch.rand(tokens, 32, device="cuda") * 6
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    made = norm_rope_operands(qkv, *norms, rope, 0.18, dtype=dtype)
    wanted = expected(operations.norm_rope(qkv, *norms, rope, 0.18), dtype)
    # One rounding less than by way of bfloat16: where that falls between two numbers of float8, they differ.
    step = 2**-3 if dtype == torch.float8_e4m3fn else 2**-8
    different = (made.queries_keys.float() - wanted[0]).abs() > wanted[0].abs() * step + 2**-9
    assert not different.any()
    if dtype == torch.float8_e4m3fn:
        assert (made.queries_keys.float() != wanted[0]).float().mean() < 0.05
    assert torch.equal(made.values.float(), wanted[1])
