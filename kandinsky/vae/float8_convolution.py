"""Convolutions of the decoder in float8 e4m3: one Triton kernel, an implicit matrix product, for Hopper GPUs. Lossy.

    out[t, y, x, o] = scale[o] sum over taps and channels of window[t + dt, y + dy, x + dx, c] kernel[o, dt, dy, dx, c]

The window has a border of one pixel in space. Its pixels, border included, are the rows of a matrix: a tap moves all of
them by the same number of rows, so a program's operands are plain tiles that the tensor memory accelerator copies. The
result has the window's rows and columns; what comes out for the border means nothing and is 1 to 7 % of the work.

What is convolved is SiLU of a normalised activation, which fits the format as it is and has no scale; kernels have one
for each output channel. Sums are those of the tensor cores, which keep 13 bits behind the largest addend in float8:
`exact_after` channels are summed so and then added in float32.

No part of the decoder takes it yet: it is to be measured first.
"""

# pyright: reportIndexIssue=false, reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportGeneralTypeIssues=false
# ruff: noqa: N803 (constants of a kernel are written in capitals)

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Of the format."""


@dataclass(frozen=True)
class Tile:
    """How a convolution is cut.

    Args:
        pixels, outputs: pixels and output channels of a program; powers of 2.
        channels: of the input, at once.
        warps, stages: of a launch.
        exact_after: channels that the tensor cores sum up by themselves, at most `channels`; 0 for all.
    """

    pixels: int = 256
    outputs: int = 128
    channels: int = 128
    warps: int = 8
    stages: int = 4
    exact_after: int = 0


@dataclass(frozen=True)
class Float8Kernel:
    """A kernel as it is multiplied.

    Args:
        values: float8 `[O, kt ky kx I]`.
        scale: float32 `[O]`.
        taps: kt, ky and kx.
    """

    values: Tensor
    scale: Tensor
    taps: tuple[int, int, int]

    @classmethod
    def of(cls, kernel: Tensor) -> "Float8Kernel":
        """From `[O, I, kt, ky, kx]`."""
        rows = kernel.float().permute(0, 2, 3, 4, 1).flatten(1)
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny * LARGEST) / LARGEST
        kt, ky, kx = kernel.shape[2:]
        return cls((rows / scale[:, None]).to(FLOAT8).contiguous(), scale, (kt, ky, kx))


@triton.jit
def _convolve(window, kernel, out, scale_ptr, rows, columns, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr,
              KT: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
              BK: tl.constexpr, EXACT: tl.constexpr):  # fmt: skip
    """BM pixels, BN output channels. Programs that share pixels follow each other. rows, columns: of the window."""
    program = tl.program_id(0)
    first = program % (OUTPUTS // BN) * BN
    start = program // (OUTPUTS // BN) * BM
    total = tl.zeros((BM, BN), dtype=tl.float32)
    for step in tl.range(0, KT * KY * KX * (INPUTS // BK)):
        tap = step // (INPUTS // BK)
        channel = step % (INPUTS // BK) * BK
        moved = (tap // (KY * KX) * rows + tap // KX % KY) * columns + tap % KX
        pixels = window.load([start + moved, channel])
        weights = kernel.load([first, tap * INPUTS + channel])
        if EXACT:
            total = tl.dot(pixels, weights.T, total, max_num_imprecise_acc=EXACT)
        else:
            total = tl.dot(pixels, weights.T, total)
    total *= tl.load(scale_ptr + first + tl.arange(0, BN))[None, :]
    out.store([start, first], total.to(out.dtype))


def convolve(window: Tensor, kernel: Float8Kernel, out: Tensor, *, tile: Tile | None = None) -> None:
    """A convolution without bias or padding: what lies around the picture is in the window.

    Args:
        window: float8 `[T, H, W, I]`, contiguous; I is a multiple of the tile's channels.
        out: `[T - kt + 1, H, W, O]`, contiguous; O is a multiple of the tile's outputs. The last ky - 1 rows and kx - 1
            columns of each frame mean nothing.
        tile: how it is cut, by default for a Hopper GPU.
    """
    outputs, inputs = out.shape[-1], window.shape[-1]
    tile = tile or (Tile(128, 256) if outputs % 256 == 0 else Tile())
    assert outputs % tile.outputs == 0
    assert inputs % tile.channels == 0
    rows, columns = window.shape[1:3]
    pixels = out.view(-1, outputs)
    programs = triton.cdiv(len(pixels), tile.pixels) * (outputs // tile.outputs)
    _convolve[(programs,)](
        TensorDescriptor.from_tensor(window.view(-1, inputs), [tile.pixels, tile.channels]),
        TensorDescriptor.from_tensor(kernel.values, [tile.outputs, tile.channels]),
        TensorDescriptor.from_tensor(pixels, [tile.pixels, tile.outputs]),
        kernel.scale, rows, columns, outputs, inputs, *kernel.taps,
        BM=tile.pixels, BN=tile.outputs, BK=tile.channels, EXACT=tile.exact_after,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
