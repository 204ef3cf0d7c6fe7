"""Kernels in float8: no scale rounds anything, and none is forgotten."""

import pytest
import torch

from kandinsky.vae.float8_kernel import FLOAT8, LARGEST, Float8Kernel, power_of_2


@pytest.fixture
def kernel():
    """Output channels of very different sizes, and input channels."""
    random = torch.randn(6, 16, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    outputs, inputs = torch.logspace(-6, 6, 6), torch.logspace(-3, 3, 16)
    return random * outputs.view(-1, 1, 1, 1, 1) * inputs.view(-1, 1, 1, 1)


@pytest.mark.parametrize(("x", "expected"), [(1.0, 1.0), (1.01, 2.0), (0.3, 0.5), (448.0, 512.0), (0.0, 2.0**-100)])
def test_powers(x, expected):
    assert power_of_2(torch.tensor([x])).item() == expected


def test_numbers_use_the_range_and_keep_their_size(kernel):
    input_scale = power_of_2(torch.logspace(3, -3, 16))
    made = Float8Kernel.of(kernel, 1 / input_scale, lambda *_, **__: None)
    assert (made.dtype, made.shape) == (FLOAT8, kernel.shape)
    largest = made.values.float().abs().amax(1)
    assert ((largest > LARGEST / 2 - 16) & (largest <= LARGEST)).all()
    stands_for = kernel * input_scale.view(-1, 1, 1, 1)
    error = (made.in_dtype(torch.float32) - stands_for).flatten(1).norm(dim=1)
    assert (error < 0.03 * stands_for.flatten(1).norm(dim=1)).all()


def test_bfloat16_holds_it_exactly(kernel):
    made = Float8Kernel.of(kernel, torch.ones(16), lambda *_, **__: None)
    half, whole = made.in_dtype(torch.bfloat16), made.in_dtype(torch.float32)
    assert torch.equal(half.float(), whole)
    assert half.is_contiguous(memory_format=torch.channels_last_3d)


def test_what_is_not_finite_stays_so():
    """A decoder's frames are looked at for it."""
    made = Float8Kernel.of(torch.full((1, 16, 3, 3, 3), torch.nan), torch.ones(16), lambda *_, **__: None)
    assert made.values.float().isnan().all()
