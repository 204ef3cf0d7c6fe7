"""Convolutions of the decoder in float8 e4m3: one Triton kernel, an implicit matrix product, for Hopper GPUs. Lossy.

    out[t, y, x, o] = scale[o] sum over dt, dy, dx, c window[t + dt, y + dy - 1, x + dx - 1, c] kernel[o, dt, dy, dx, c]

A program has a rectangle of one frame's pixels and some output channels. For each tap the tensor memory accelerator
copies the rectangle from where the tap moves it to; what lies outside of the window it fills with zeros, so neither
window nor result has a border, and it cuts off what a result's rectangle has too much. Pixels are the columns of the
matrix product: Triton gives a product's second operand to the tensor cores from where it was copied to, in any shape.

Sums are those of the tensor cores, which keep 13 bits behind the largest addend in float8.
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

from kandinsky.vae.float8_kernel import CHANNELS, Float8Kernel

RECTANGLES = ((16, 16), (8, 32), (32, 8))
"""Rows and columns of a program's pixels, the most compact first: its taps share the most."""
MANY_OUTPUTS = 512
"""Frames of so many channels are small: with half of the pixels there are more programs, two on a multiprocessor."""


@dataclass(frozen=True)
class Tile:
    """How a convolution is cut; all are powers of 2.

    Args:
        rows, columns: pixels of a program.
        outputs: output channels of a program.
        channels: of the input, at once.
        warps, stages: of a launch.
    """

    rows: int
    columns: int
    outputs: int = CHANNELS
    channels: int = CHANNELS
    warps: int = 8
    stages: int = 3

    @classmethod
    def of(cls, height: int, width: int, outputs: int) -> "Tile":
        """The one with the fewest programs for frames of this size; as it was measured on an H100."""
        if outputs >= MANY_OUTPUTS:
            return cls(16, 8)
        return cls(*min(RECTANGLES, key=lambda one: -(-height // one[0]) * -(-width // one[1])))


@triton.jit(do_not_specialize=["across", "down", "border"])
def _convolve(window, kernel, out, scale_ptr, across, down, border, INPUTS: tl.constexpr, OUTPUTS: tl.constexpr,
              KT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, BLOCK: tl.constexpr,
              AT_ONCE: tl.constexpr):  # fmt: skip
    """ROWS x COLUMNS pixels, BLOCK output channels; inputs come AT_ONCE. Programs that share pixels follow each other.
    across, down: rectangles of a frame."""
    program = tl.program_id(0)
    first = program % (OUTPUTS // BLOCK) * BLOCK
    rectangle = program // (OUTPUTS // BLOCK)
    x = rectangle % across * COLUMNS
    y = rectangle // across % down * ROWS
    t = rectangle // (across * down)
    total = tl.zeros((BLOCK, ROWS * COLUMNS), dtype=tl.float32)
    for step in tl.range(0, KT * 9 * (INPUTS // AT_ONCE)):
        tap = step // (INPUTS // AT_ONCE)
        channel = step % (INPUTS // AT_ONCE) * AT_ONCE
        weights = kernel.load([first, tap * INPUTS + channel])
        pixels = window.load([t + tap // 9, y + tap // 3 % 3 + border - 1, x + tap % 3 - 1, channel])
        total = tl.dot(weights, pixels.reshape(ROWS * COLUMNS, AT_ONCE).T, total)
    total *= tl.load(scale_ptr + first + tl.arange(0, BLOCK))[:, None]
    out.store([t, y, x, first], total.to(out.dtype).T.reshape(1, ROWS, COLUMNS, BLOCK))


def convolve(window: Tensor, kernel: Float8Kernel, out: Tensor, *, border: int, tile: Tile | None = None) -> None:
    """See `float8_kernel.Convolve`.

    Args:
        tile: how it is cut, by default for a Hopper GPU; numbers of channels are multiples of its own.
    """
    frames, height, width, outputs = out.shape
    inputs = window.shape[-1]
    tile = tile or Tile.of(height, width, outputs)
    assert outputs % tile.outputs == 0
    assert inputs % tile.channels == 0
    down, across = triton.cdiv(height, tile.rows), triton.cdiv(width, tile.columns)
    rectangle = [1, tile.rows, tile.columns]
    with torch.cuda.device_of(window):
        _convolve[(frames * down * across * (outputs // tile.outputs),)](
            TensorDescriptor.from_tensor(window, [*rectangle, tile.channels]),
            TensorDescriptor.from_tensor(kernel.values, [tile.outputs, tile.channels]),
            TensorDescriptor.from_tensor(out, [*rectangle, tile.outputs]),
            kernel.scale, across, down, border, inputs, outputs, KT=kernel.shape[2], ROWS=tile.rows,
            COLUMNS=tile.columns, BLOCK=tile.outputs, AT_ONCE=tile.channels, num_warps=tile.warps,
            num_stages=tile.stages,
        )  # fmt: skip
