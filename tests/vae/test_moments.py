"""GroupNorm by moments that are worked out apart."""

import pytest
import torch
import torch.nn.functional as F
from helpers import relative_error
from torch import nn

from kandinsky.vae.moments import WideGroupNorm, group_norm


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("affine", [True, False])
def test_equals_pytorchs(dtype, affine):
    generator = torch.Generator().manual_seed(0)
    x = (3 * torch.randn(1, 8, 5, 16, 12, generator=generator) + 2).to(dtype)
    weight, bias = (torch.randn(8, generator=generator).to(dtype) if affine else None for _ in range(2))
    expected = F.group_norm(x.double(), 4, *(v if v is None else v.double() for v in (weight, bias)), eps=1e-6)
    found = group_norm(x, 4, weight, bias, 1e-6)
    assert found.dtype == dtype
    assert relative_error(found, expected) < (1e-6 if dtype == torch.float32 else 3e-3)


def test_a_constant_clip():
    x = torch.full((1, 4, 3, 8, 8), 7.0)
    assert group_norm(x, 2).abs().max() < 1e-2


def test_the_cpu_has_pytorchs_own():
    norm, x = nn.GroupNorm(2, 4), torch.randn(1, 4, 3, 8, 8)
    with WideGroupNorm(), torch.no_grad():
        found = norm(x)
    assert torch.equal(found, norm(x))


@pytest.mark.gpu
def test_one_clip_on_a_gpu_and_nothing_else():
    norm = nn.GroupNorm(32, 128, device="cuda", dtype=torch.bfloat16)
    x = torch.randn(2, 128, 3, 64, 64, device="cuda", dtype=torch.bfloat16)
    with torch.no_grad():
        plain = norm(x)
        with WideGroupNorm():
            assert torch.equal(norm(x), plain)
            one = norm(x[:1])
    assert relative_error(one, plain[:1]) < 3e-3
