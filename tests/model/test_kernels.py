"""The fused kernels of the DiT's element-wise work on a GPU, each against its plain twin on random input."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import relative_error
from model_helpers import random_norm, random_terms

from kandinsky.model.layout import Segments
from kandinsky.model.operations import PLAIN, Residual, fused

pytestmark = pytest.mark.gpu
CUDA = torch.device("cuda", 0)
ON_GPU = {"device": CUDA, "dtype": torch.bfloat16}
EXACT = 6e-3
"""Relative: two roundings to bfloat16 that may fall to either side."""


def rows(*shape):
    return torch.randn(*shape, **ON_GPU)


@pytest.mark.parametrize("dim", [128, 3072])
@pytest.mark.parametrize("lengths", [(1000, 225), (1, 1), (37, 5, 200, 7)])
@pytest.mark.parametrize("with_residual", [True, False])
def test_add_norm(dim, lengths, with_residual):
    tokens, segments = 3 * rows(sum(lengths), dim), Segments.of(lengths, CUDA)
    modulation, before = random_terms(len(lengths), dim, **ON_GPU)
    residual = Residual(rows(sum(lengths), dim), before.gate) if with_residual else None
    layer = random_norm(dim, **ON_GPU)
    expected = PLAIN.add_norm(tokens, residual, layer, modulation, segments)
    found = fused().add_norm(tokens, residual, layer, modulation, segments)
    for ours, plain in zip(found, expected, strict=True):
        assert ours.dtype == torch.bfloat16
        assert relative_error(ours, plain) < EXACT


@pytest.mark.parametrize(("heads", "head_dim"), [(2, 64), (48, 64), (6, 64), (3, 40)])
@pytest.mark.parametrize("scale", [1.0, math.log2(math.e) / 8])
def test_norm_rope(heads, head_dim, scale):
    qkv = rows(301, 3, heads, head_dim)
    query_norm, key_norm = random_norm(head_dim, **ON_GPU), random_norm(head_dim, **ON_GPU)
    angles = torch.randn(301, head_dim // 2, device=CUDA)
    rope = torch.stack((angles.cos(), angles.sin()), -1)
    expected = PLAIN.norm_rope(qkv, query_norm, key_norm, rope, scale)
    found = fused().norm_rope(qkv.clone(), query_norm, key_norm, rope, scale)
    assert relative_error(found, expected) < EXACT
    assert torch.equal(found[:, 2], qkv[:, 2])


@pytest.mark.parametrize("heads", [24, 16, 12, 8, 6])
def test_some_of_the_heads_have_the_bits_of_all(heads):
    """Which is what each of several GPUs has with `parallelism="sequence"`."""
    qkv, norms = rows(301, 3, 48, 64), [random_norm(64, **ON_GPU) for _ in range(2)]
    angles = torch.randn(301, 32, device=CUDA)
    terms = (*norms, torch.stack((angles.cos(), angles.sin()), -1), math.log2(math.e) / 8)
    some = fused().norm_rope(qkv[:, :, :heads].contiguous(), *terms)
    assert torch.equal(some, fused().norm_rope(qkv, *terms)[:, :, :heads])


@pytest.mark.parametrize("dim", [128, 1536, 12288])
@pytest.mark.parametrize("offset", [0.0, -4.0])
def test_gelu_quantise(dim, offset):
    """Every value within e4m3's half step, also where the whole row is negative and GELU tiny."""
    x = 2 * rows(77, dim) + offset
    quantised, expected = fused(quantise=True).gelu(x), F.gelu(x.float())
    found = quantised.values.float() * quantised.scale
    assert ((found - expected).abs() <= expected.abs() / 15 + quantised.scale * 2**-9).all()


@pytest.mark.parametrize("dim", [128, 3072, 12288])
def test_float8_rows(dim):
    """Largest magnitude of a row is representable; every value within e4m3's half step of 1/16."""
    x = rows(33, dim) * torch.logspace(-3, 3, 33, device=CUDA)[:, None].bfloat16()
    from kandinsky.model.kernels import quantise_rows

    quantised = quantise_rows(x)
    back = quantised.values.float() * quantised.scale
    assert relative_error(back.abs().amax(1), x.float().abs().amax(1)) < 1e-3
    assert ((back - x.float()).abs() <= x.float().abs() / 16 + quantised.scale * 2**-9).all()
