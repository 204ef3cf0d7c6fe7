"""Convolutions in float8 against PyTorch's on the same numbers."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import relative_error

SHAPES = [
    ((5, 6, 9, 16, 16, 3), 0),  # frames, rows, columns, inputs, outputs, taps in time
    ((4, 5, 9, 16, 32, 3), 1),
    ((3, 5, 7, 64, 16, 2), 0),
]
"""Of what is convolved, and rows above and below that the window has."""
ON_A_GPU = [((4, 17, 35, 128, 128, 3), 0), ((4, 17, 35, 128, 128, 3), 1), ((3, 16, 33, 256, 512, 2), 0)]
"""Each kind is compiled, which takes seconds."""


def check(shape, border, device, *, tile=None, **place):
    """One convolution against the same by PyTorch, in which all numbers and their products are exact."""
    from kandinsky.vae import float8_convolution as float8
    from kandinsky.vae.float8 import emulated
    from kandinsky.vae.float8_kernel import Float8Kernel

    torch.manual_seed(0)
    frames, height, width, inputs, outputs, taps = shape
    scale = 2.0 ** torch.randint(-9, 9, (inputs,), device=device)
    kernel = torch.randn(outputs, inputs, taps, 3, 3, device=device) * scale.view(-1, 1, 1, 1)
    made = Float8Kernel.of(kernel, scale, float8.convolve)
    window = torch.randn(frames, height + 2 * border, width, inputs, device=device).to(made.dtype)
    expected, out = (torch.full((frames - taps + 1, height, width, outputs), torch.nan, device=device) for _ in "12")
    emulated(window, made, expected, border=border)
    out = out.to(**place)
    float8.convolve(window, made, out, border=border, tile=tile and float8.Tile(*tile))
    assert relative_error(out, expected) < (1e-2 if place else 3e-3)


@pytest.mark.slow
def test_on_a_cpu():
    """In Triton's interpreter, which must be chosen before Triton is imported."""
    code = "import test_float8_convolution as t; [t.check(*one, 'cpu', tile=(2, 4, 16, 16)) for one in t.SHAPES]"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


@pytest.mark.parametrize(
    ("height", "width", "outputs", "expected"),
    [(384, 672, 128, (16, 16)), (96, 168, 256, (32, 8)), (8, 64, 128, (8, 32)), (48, 84, 512, (16, 8))],
)
def test_tiles(height, width, outputs, expected):
    """Few programs, whose pixels are whole."""
    pytest.importorskip("triton")
    from kandinsky.vae.float8_convolution import Tile

    tile = Tile.of(height, width, outputs)
    assert (tile.rows, tile.columns) == expected
    assert tile.outputs == tile.channels == 128


@pytest.mark.gpu
@pytest.mark.timeout(60)
@pytest.mark.parametrize(("shape", "border"), ON_A_GPU)
def test_on_a_gpu(shape, border):
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    torch.backends.cudnn.allow_tf32 = False
    check(shape, border, "cuda", dtype=torch.bfloat16)
