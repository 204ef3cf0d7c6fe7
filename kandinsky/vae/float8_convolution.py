"""Convolutions of the decoder in float8 e4m3: one Triton kernel, an implicit matrix product, for Hopper GPUs. Lossy.

    out[t, y, x, o] = scale[o] sum over taps and channels of window[t + dt, y + dy, x + dx, c] kernel[o, dt, dy, dx, c]

A program computes a box of pixels for some of the output channels: rows of its matrix are pixels, its inner axis is taps
times channels. Boxes are copied by the tensor memory accelerator, which gives zeros outside of the picture: the padding
costs nothing. What is convolved is SiLU of a normalised activation, which fits the format as it is and has no scale;
kernels have one for each output channel. Sums are those of the tensor cores, which keep 13 bits behind the largest addend
in float8; `EXACT_AFTER` channels are summed so and then added in float32.

Not in use: docs/benchmarks-tried.md says what is measured of it.
"""

# pyright: reportIndexIssue=false, reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false
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
        rows, columns: of the box of pixels of a program; powers of 2.
        outputs: channels of a program.
        channels: of the input, at once.
        warps, stages: of a launch.
        exact_after: channels that the tensor cores sum up by themselves, 0 for all.
    """

    rows: int = 16
    columns: int = 16
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
        scale = rows.abs().amax(1).clamp_min(torch.finfo(torch.float32).tiny) / LARGEST
        kt, ky, kx = kernel.shape[2:]
        return cls((rows / scale[:, None]).to(FLOAT8).contiguous(), scale, (kt, ky, kx))


@triton.jit
def _convolve(window, kernel, out, scale_ptr, across, down,
              pad_y, pad_x, O: tl.constexpr, I: tl.constexpr, KT: tl.constexpr, KY: tl.constexpr, KX: tl.constexpr,
              BH: tl.constexpr, BW: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, EXACT: tl.constexpr):  # fmt: skip
    """One box of pixels, BN output channels. Programs that share a box follow each other."""
    program = tl.program_id(0)
    first = program % (O // BN) * BN
    box = program // (O // BN)
    x = box % across * BW
    y = box // across % down * BH
    t = box // across // down
    total = tl.zeros((BH * BW, BN), dtype=tl.float32)
    for step in tl.range(0, KT * KY * KX * (I // BK)):
        tap = step // (I // BK)
        channel = step % (I // BK) * BK
        dt = tap // (KY * KX)
        dy = tap // KX % KY
        dx = tap % KX
        pixels = window.load([t + dt, y + dy - pad_y, x + dx - pad_x, channel]).reshape(BH * BW, BK)
        weights = kernel.load([first, tap * I + channel])
        if EXACT:
            total = tl.dot(pixels, weights.T, total, max_num_imprecise_acc=EXACT)
        else:
            total = tl.dot(pixels, weights.T, total)
    total *= tl.load(scale_ptr + first + tl.arange(0, BN))[None, :]
    out.store([t, y, x, first], total.to(out.dtype).reshape(1, BH, BW, BN))


def convolve(window: Tensor, kernel: Float8Kernel, out: Tensor, *, border: int, tile: Tile | None = None) -> None:
    """A convolution without bias, zero padding 1 in space (or `border` rows that the window has already), none in time.

    Args:
        window: float8 `[T, H, W, I]`, contiguous; I is a multiple of the tile's channels.
        out: `[T - kt + 1, H, W, O]` without border rows, contiguous; O is a multiple of the tile's outputs.
        tile: how it is cut, by default for a Hopper GPU.
    """
    tile = tile or Tile(columns=16, rows=16 if out.shape[-1] < 256 else 8, outputs=min(out.shape[-1], 256))
    frames, height, width, outputs = out.shape
    channels = window.shape[-1]
    assert outputs % tile.outputs == 0
    assert channels % tile.channels == 0
    across, down = triton.cdiv(width, tile.columns), triton.cdiv(height, tile.rows)
    box = [1, tile.rows, tile.columns]
    _convolve[(frames * down * across * (outputs // tile.outputs),)](
        TensorDescriptor.from_tensor(window, [*box, tile.channels]),
        TensorDescriptor.from_tensor(kernel.values, [tile.outputs, tile.channels]),
        TensorDescriptor.from_tensor(out, [*box, tile.outputs]),
        kernel.scale, across, down, 1 - border, 1, outputs, channels, *kernel.taps,
        BH=tile.rows, BW=tile.columns, BN=tile.outputs, BK=tile.channels, EXACT=tile.exact_after,
        num_warps=tile.warps, num_stages=tile.stages,
    )  # fmt: skip
