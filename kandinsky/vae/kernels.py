"""Triton kernels for what the decoder does between convolutions; same interface and results as `norm.PlainOps`.

* statistics: every program sums whole image rows, per channel in float32; a second kernel adds these partial sums in
  float64 in a fixed order: no atomics, so a result doesn't change from run to run.
* `add`: residual sum and the sums for the next norm in one pass.
* `normalise`: GroupNorm x conv_y + conv_b and SiLU in one pass, written into the next convolution's window.

All are bound by memory. Needs channel counts and group counts that are powers of 2 (see `best_ops`). Offsets of
rows are 64 bits wide: a large video's activation passes 2^31 elements.
"""

# pyright: reportIndexIssue=false, reportMissingImports=false, reportPossiblyUnboundVariable=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false, reportOperatorIssue=false
# pyright: reportOptionalMemberAccess=false
# (Triton's launch syntax and its compile-time branches; the package is not there on every platform.)
# ruff: noqa: N803 (constants of a kernel are written in capitals)

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra import libdevice

from kandinsky.vae.activation import Activation, Time, latent_frames
from kandinsky.vae.decoder_weights import NORM_EPS, NormWeights
from kandinsky.vae.rows import WHOLE, Rows

PROGRAMS = 2112
"""Most programs that share a statistics pass: 16 for each of a Hopper's 132 multiprocessors."""
TILE = 4096
"""Elements that a program holds at once."""
WARPS = 4


@triton.jit
def _stored_row(t, y, T, H, W, FIRST: tl.constexpr, PAIRED: tl.constexpr, QUARTERS: tl.constexpr):
    """First pixel of (frame t, row y), and how far the pixels of odd columns lie behind."""
    if PAIRED:
        t = (t + FIRST) // 2
    if QUARTERS:
        rows = H // 2 + 1
        columns = W // 2 + 1
        down = y % 2
        base = ((2 * down * T + t).to(tl.int64) * rows + y // 2 + down) * columns
        right = T.to(tl.int64) * rows * columns + 1
    else:
        base = (t.to(tl.int64) * H + y) * W
        right = base * 0
    return base, right


@triton.jit(do_not_specialize=["T"])
def _sums_kernel(x_ptr, r_ptr, bias_ptr, partial_ptr, image_rows, per_program, T, H, W,
                 C: tl.constexpr, BLOCK: tl.constexpr, ADD: tl.constexpr, FIRST: tl.constexpr, HALVE: tl.constexpr,
                 PAIRED: tl.constexpr, QUARTERS: tl.constexpr):  # fmt: skip
    """Per-channel sums of some image rows. ADD: of x + r + bias, which is written over x; the layout flags are then
    r's, else they are x's. HALVE: the first frame counts half."""
    program = tl.program_id(0)
    channels = tl.arange(0, C)
    columns = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK, C), dtype=tl.float32)
    squares = tl.zeros((BLOCK, C), dtype=tl.float32)
    if ADD:
        bias = tl.load(bias_ptr + channels)[None, :]
    start = program * per_program
    for step in range(tl.minimum(image_rows - start, per_program)):
        image_row = start + step
        t = image_row // H
        y = image_row % H
        base, right = _stored_row(t, y, T, H, W, FIRST, PAIRED, QUARTERS)
        for x0 in range(0, W, BLOCK):
            x = x0 + columns
            inside = (x < W)[:, None]
            pixel = base + x // 2 + (x % 2) * right if QUARTERS else base + x
            source = pixel[:, None] * C + channels[None, :]
            if ADD:
                own = ((image_row.to(tl.int64) * W + x)[:, None]) * C + channels[None, :]
                value = tl.load(x_ptr + own, mask=inside, other=0.0).to(tl.float32)
                value = value + tl.load(r_ptr + source, mask=inside, other=0.0).to(tl.float32)
                value = value + bias  # in the order of the plain path: the sums are then equal to the bit
                rounded = value.to(x_ptr.dtype.element_ty)
                tl.store(x_ptr + own, rounded, mask=inside)
                value = tl.where(inside, rounded.to(tl.float32), 0.0)
            else:
                value = tl.load(x_ptr + source, mask=inside, other=0.0).to(tl.float32)
            if HALVE:
                scaled = tl.where(t == 0, 0.5, 1.0) * value
                total += scaled
                squares += scaled * value
            else:
                total += value
                squares += value * value
    out = partial_ptr + program * 2 * C + channels
    tl.store(out, tl.sum(total, 0))
    tl.store(out + C, tl.sum(squares, 0))


@triton.jit
def _combine_kernel(partial_ptr, gamma_ptr, beta_ptr, bias_ptr, out_ptr, programs, pixels, eps,
                    C: tl.constexpr, GROUP: tl.constexpr, BLOCK: tl.constexpr):  # fmt: skip
    """One group's partial sums to its channels' coefficients."""
    channels = tl.program_id(0) * GROUP + tl.arange(0, GROUP)
    total = tl.zeros((BLOCK, GROUP), dtype=tl.float64)
    squares = tl.zeros((BLOCK, GROUP), dtype=tl.float64)
    for p0 in range(0, programs, BLOCK):
        p = p0 + tl.arange(0, BLOCK)
        source = partial_ptr + p[:, None] * 2 * C + channels[None, :]
        inside = (p < programs)[:, None]
        total += tl.load(source, mask=inside, other=0.0).to(tl.float64)
        squares += tl.load(source + C, mask=inside, other=0.0).to(tl.float64)
    bias = tl.load(bias_ptr + channels)
    b = bias.to(tl.float64)
    count = tl.zeros((1,), dtype=tl.float64) + pixels
    sums = tl.sum(total, 0)
    mean = tl.sum(sums + count * b, 0) / (count * GROUP)
    square = tl.sum(tl.sum(squares, 0) + 2 * b * sums + count * b * b, 0) / (count * GROUP)
    variance = tl.maximum(square - mean * mean, 0.0).to(tl.float32)
    factor = tl.load(gamma_ptr + channels) / tl.sqrt_rn(variance + eps)
    offset = (bias - mean.to(tl.float32)) * factor + tl.load(beta_ptr + channels)
    tl.store(out_ptr + channels, factor)
    tl.store(out_ptr + C + channels, offset)


@triton.jit(do_not_specialize=["T", "start"])
def _normalise_kernel(x_ptr, coefficient_ptr, latent_ptr, scale_ptr, out_ptr, out_stride, start, T, H, W, z_repeat,
                      back, C: tl.constexpr, BLOCK: tl.constexpr, Z_FIRST: tl.constexpr, SIZE: tl.constexpr,
                      SPLIT: tl.constexpr, QUARTERS: tl.constexpr, SCALED: tl.constexpr):  # fmt: skip
    """SiLU((x * factor + offset) * conv_y + conv_b) for one block of columns of one image row, SCALED for float8, whose
    conversion saturates. SIZE: rows and columns of pixels that show one of the latents."""
    y = tl.program_id(1)
    frame = tl.program_id(2)
    t = start + frame
    source_t = t
    if SPLIT:  # even results, then odd ones; with an odd number of frames the first is an even one alone
        odd = tl.where(t > 0, (t + Z_FIRST) % 2, 0)
        source_t = (t + Z_FIRST) // 2 + odd * back
    base, right = _stored_row(source_t, y, T, H, W, 0, False, QUARTERS)
    x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = (x < W)[:, None]
    pixel = base + x // 2 + (x % 2) * right if QUARTERS else base + x
    channels = tl.arange(0, C)
    value = tl.load(x_ptr + pixel[:, None] * C + channels[None, :], mask=inside, other=0.0).to(tl.float32)
    factor = tl.load(coefficient_ptr + channels)[None, :]
    offset = tl.load(coefficient_ptr + C + channels)[None, :]
    z = tl.where(t < Z_FIRST, 0, Z_FIRST + (t - Z_FIRST) // z_repeat)
    latent_row = (z * (H // SIZE) + y // SIZE) * (W // SIZE)
    latent = latent_ptr + (latent_row + x // SIZE)[:, None] * (2 * C) + channels[None, :]
    conv_y = tl.load(latent, mask=inside, other=0.0).to(tl.float32)
    conv_b = tl.load(latent + C, mask=inside, other=0.0).to(tl.float32)
    value = (value * factor + offset) * conv_y + conv_b
    # the approximate division: the other one's range checks are a seventh of the kernel's instructions
    value = libdevice.fast_dividef(value, 1.0 + tl.exp(-value))
    if SCALED:
        value = value * tl.load(scale_ptr + channels)[None, :]
    own = frame.to(tl.int64) * out_stride + (y * W + x)[:, None] * C + channels[None, :]
    tl.store(out_ptr + own, value.to(out_ptr.dtype.element_ty), mask=inside)


@dataclass(frozen=True)
class TritonOps:
    """`norm.Ops` on a GPU."""

    rows: Rows = WHOLE

    def statistics(self, x: Activation, norm: NormWeights) -> Tensor:
        return coefficients_of(sums(x, None, norm.input_bias), x, norm, self.rows)

    def normalise(
        self,
        x: Activation,
        coefficients: Tensor,
        latent: Tensor,
        *,
        start: int,
        out: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        frames = x.stored_frames
        (height, width), channels = x.size, x.channels
        first, repeat = latent_frames(frames, latent.shape[0])
        block = block_of(channels)
        grid = (triton.cdiv(width, block), height, out.shape[0])
        with torch.cuda.device_of(x.data):
            _normalise_kernel[grid](
                x.data, coefficients, latent, coefficients if scale is None else scale, out, out.stride(0), start,
                frames, height, width, repeat, (frames + first) // 2 - first, C=channels, BLOCK=block, Z_FIRST=first,
                SIZE=height // latent.shape[1], SPLIT=x.time is Time.SPLIT, QUARTERS=x.quarters,
                SCALED=scale is not None, num_warps=WARPS,
            )  # fmt: skip

    def add(self, x: Activation, residual: Activation, bias: Tensor, norm: NormWeights | None) -> tuple[Tensor, Tensor]:
        partial = sums(x, residual, bias)
        return x.data, bias[:0] if norm is None else coefficients_of(partial, x, norm, self.rows)


def block_of(channels: int) -> int:
    return max(TILE // channels, 1)


def sums(x: Activation, residual: Activation | None, bias: Tensor) -> Tensor:
    """[programs, 2, C] float32: sums and sums of squares of x, or of x + residual + bias, written over x."""
    layout = x if residual is None else residual
    height, width = x.size
    image_rows = x.stored_frames * height
    per_program = triton.cdiv(image_rows, PROGRAMS)
    programs = triton.cdiv(image_rows, per_program)
    partial = torch.empty(programs, 2, x.channels, dtype=torch.float32, device=x.data.device)
    paired = layout.time is Time.PAIRED
    with torch.cuda.device_of(x.data):
        _sums_kernel[(programs,)](
            x.data, layout.data, bias, partial, image_rows, per_program, layout.stored_frames, height, width,
            C=x.channels, BLOCK=block_of(x.channels), ADD=residual is not None, FIRST=layout.first,
            HALVE=residual is None and paired and bool(x.first), PAIRED=residual is not None and paired,
            QUARTERS=layout.quarters, num_warps=WARPS,
        )  # fmt: skip
    return partial


def coefficients_of(partial: Tensor, x: Activation, norm: NormWeights, rows: Rows) -> Tensor:
    channels = partial.shape[-1]
    if rows.border:
        partial = rows.gather(partial.sum(0, dtype=torch.float64).float())
    out = torch.empty(2, channels, dtype=torch.float32, device=partial.device)
    with torch.cuda.device_of(partial):
        _combine_kernel[(norm.groups,)](
            partial, norm.gamma, norm.beta, norm.input_bias, out, partial.shape[0], rows.pixels(x.pixels), NORM_EPS,
            C=channels, GROUP=channels // norm.groups, BLOCK=128, num_warps=WARPS,
        )  # fmt: skip
    return out
