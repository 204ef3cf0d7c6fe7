"""Convolutions in float8 against PyTorch's on the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import relative_error

FLOAT8 = torch.float8_e4m3fn
SHAPES = [((3, 5, 9, 32), (16, 3, 3, 3)), ((4, 6, 8, 32), (32, 2, 3, 3)), ((2, 5, 6, 16), (16, 1, 2, 2))]
"""Window, and kernel [O, kt, ky, kx]."""


def check(shape, kernel_shape, device):
    """One convolution in small tiles."""
    from kandinsky.vae import float8_convolution as float8

    torch.manual_seed(0)
    outputs, kt, ky, kx = kernel_shape
    window = torch.randn(shape, device=device).to(FLOAT8)
    kernel = float8.Float8Kernel.of(torch.randn(outputs, shape[-1], kt, ky, kx, device=device))
    x = window.float().permute(3, 0, 1, 2)[None]
    weight = (kernel.values.float() * kernel.scale[:, None]).view(outputs, kt, ky, kx, -1).permute(0, 4, 1, 2, 3)
    expected = torch.nn.functional.conv3d(x, weight)[0].permute(1, 2, 3, 0)
    for exact_after in (0, 32) if device == "cuda" else (0,):
        out = torch.full((len(expected), *shape[1:3], outputs), float("nan"), device=device)
        channels = 16 if device == "cpu" else 32  # the tensor cores' products are of 32
        float8.convolve(window, kernel, out, tile=float8.Tile(64, 16, channels, 4, 2, exact_after))
        assert relative_error(out[:, : expected.shape[1], : expected.shape[2]], expected) < 1e-3


def test_a_kernel_keeps_its_size():
    from kandinsky.vae.float8_convolution import Float8Kernel

    kernel = torch.randn(6, 16, 3, 3, 3) * torch.logspace(-6, 6, 6).view(-1, 1, 1, 1, 1)
    made = Float8Kernel.of(kernel)
    rows = kernel.permute(0, 2, 3, 4, 1).flatten(1)
    assert (made.values.float().abs().amax(1) == 448).all()
    assert (((made.values.float() * made.scale[:, None] - rows).norm(dim=1) / rows.norm(dim=1)) < 0.03).all()


@pytest.mark.slow
def test_on_a_cpu():
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = "import test_float8_convolution as t; [t.check(*shape, 'cpu') for shape in t.SHAPES]"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.gpu
@pytest.mark.parametrize(("shape", "kernel_shape"), SHAPES[:2])
def test_on_a_gpu(shape, kernel_shape):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    check(shape, kernel_shape, "cuda")
