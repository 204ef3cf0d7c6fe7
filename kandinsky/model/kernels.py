"""Fused Triton kernels of the DiT's element-wise work; each has a plain-PyTorch twin in `operations`, its oracle.

Legend:  tokens, branch, normed: [tokens, model_dim]     qkv: [tokens, 3, heads, head_dim]     segment: int32 [tokens]

Each kernel reads its inputs once, computes in float32 and rounds once where the published code rounds. They have no
backward pass. Triton launches on the current device, so that each launch says whose it is. With `quantise` the result
is float8 e4m3 with a float32 scale for each row, the operand of a scaled matrix product. Programs are whole rows:
nothing is recompiled for another number of tokens. Times at full size are in docs/benchmarks.md (per-kernel table).
"""

# pyright: reportIndexIssue=false, reportMissingImports=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Triton's launch syntax; the package is not there on every platform.)

import torch
import triton
import triton.language as tl
from torch import Tensor

from kandinsky.model.quantised import FLOAT8_MAX, Quantised

WARPS = 4
"""Of a program that has all heads of a token."""


@triton.jit
def _store_row(x, out, scale_out, row, columns, inside, dim, quantise: tl.constexpr, largest: tl.constexpr):
    """Store a float32 row: rounded to out's dtype, or as float8 with its scale."""
    if quantise:
        scale = tl.maximum(tl.max(tl.where(inside, tl.abs(x), 0.0), 0), 1e-12) / largest
        tl.store(scale_out + row, scale)
        x = x / scale
    tl.store(out + row * dim + columns, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _add_norm(
    tokens, branch, gate, weight, bias, shift, scale, segment, tokens_out, out, scale_out,
    stride, dim, eps,
    block: tl.constexpr, residual: tl.constexpr, quantise: tl.constexpr, largest: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < dim
    terms = tl.load(segment + row) * stride + columns  # this row's modulation
    x = tl.load(tokens + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
    if residual:
        branch_row = tl.load(branch + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
        x += tl.load(gate + terms, mask=inside, other=0.0).to(tl.float32) * branch_row
        x = x.to(tokens_out.dtype.element_ty)
        tl.store(tokens_out + row * dim + columns, x, mask=inside)
        x = x.to(tl.float32)  # the norm sees what the stream holds
    centred = tl.where(inside, x - tl.sum(x, 0) / dim, 0.0)
    x = centred * tl.rsqrt(tl.sum(centred * centred, 0) / dim + eps)
    x = x * tl.load(weight + columns, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(bias + columns, mask=inside, other=0.0).to(tl.float32)
    x *= 1.0 + tl.load(scale + terms, mask=inside, other=0.0).to(tl.float32)
    x += tl.load(shift + terms, mask=inside, other=0.0).to(tl.float32)
    _store_row(x, out, scale_out, row, columns, inside, dim, quantise, largest)


@triton.jit
def normed_and_turned(
    qkv, query_weight, query_bias, key_weight, key_bias, rope, row, part, head, channel, inside, heads, eps,
    query_scale, block_heads: tl.constexpr, head_dim: tl.constexpr, block_dim: tl.constexpr,
):  # fmt: skip
    """All heads of one token's query (part 0) or key (part 1) behind norm and RoPE, rounded to qkv's dtype."""
    at = qkv + ((row * 3 + part) * heads + head) * head_dim + channel
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32)
    centred = tl.where(inside, x - tl.sum(x, 1)[:, None] / head_dim, 0.0)
    x = centred * tl.rsqrt(tl.sum(centred * centred, 1) / head_dim + eps)[:, None]
    if part == 0:
        weight = tl.load(query_weight + channel, mask=channel < head_dim, other=0.0).to(tl.float32)
        bias = tl.load(query_bias + channel, mask=channel < head_dim, other=0.0).to(tl.float32)
    else:
        weight = tl.load(key_weight + channel, mask=channel < head_dim, other=0.0).to(tl.float32)
        bias = tl.load(key_bias + channel, mask=channel < head_dim, other=0.0).to(tl.float32)
    x = x * weight + bias
    x = x.to(qkv.dtype.element_ty).to(tl.float32)  # rounded before RoPE, as the published code does
    first, second = tl.split(x.reshape(block_heads, block_dim // 2, 2))
    pair = tl.arange(0, block_dim // 2)[None, :]
    angles = rope + row * head_dim + 2 * pair
    cos = tl.load(angles, mask=2 * pair < head_dim, other=0.0)
    sin = tl.load(angles + 1, mask=2 * pair < head_dim, other=0.0)
    x = tl.join(first * cos - second * sin, first * sin + second * cos).reshape(block_heads, block_dim)
    x *= tl.where(part == 0, query_scale, 1.0)
    return x.to(qkv.dtype.element_ty)


@triton.jit
def _norm_rope(
    qkv, query_weight, query_bias, key_weight, key_bias, rope, heads, eps, query_scale,
    block_heads: tl.constexpr, head_dim: tl.constexpr, block_dim: tl.constexpr,
):  # fmt: skip
    """One program: all heads of one token's query (part 0) or key (part 1), in place."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, channel = tl.arange(0, block_heads)[:, None], tl.arange(0, block_dim)[None, :]
    inside = (head < heads) & (channel < head_dim)
    x = normed_and_turned(
        qkv, query_weight, query_bias, key_weight, key_bias, rope, row, part, head, channel, inside, heads, eps,
        query_scale, block_heads, head_dim, block_dim,
    )  # fmt: skip
    tl.store(qkv + ((row * 3 + part) * heads + head) * head_dim + channel, x, mask=inside)


@triton.jit
def _gelu_quantise(x_in, out, scale_out, dim, block: tl.constexpr, chunk: tl.constexpr, largest: tl.constexpr):
    """Chunk by chunk: a row of the hidden layer is too long to be held, and its length no power of two."""
    row = tl.program_id(0).to(tl.int64)
    top = tl.full([chunk], 0.0, tl.float32)
    for start in tl.range(0, block, chunk):
        columns = start + tl.arange(0, chunk)
        x = tl.load(x_in + row * dim + columns, mask=columns < dim, other=0.0).to(tl.float32)
        top = tl.maximum(top, x)
    # GELU rises with x where it is positive and is never under -0.17, so the largest input gives the largest magnitude.
    highest = tl.max(top, 0)
    scale = tl.maximum(0.5 * highest * (1.0 + tl.math.erf(highest * 0.7071067811865476)), 0.17) / largest
    tl.store(scale_out + row, scale)
    for start in tl.range(0, block, chunk):
        columns = start + tl.arange(0, chunk)
        inside = columns < dim
        x = tl.load(x_in + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
        x = 0.5 * x * (1.0 + tl.math.erf(x * 0.7071067811865476)) / scale
        tl.store(out + row * dim + columns, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _quantise(x_in, out, scale_out, dim, block: tl.constexpr, largest: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, block)
    inside = columns < dim
    x = tl.load(x_in + row * dim + columns, mask=inside, other=0.0).to(tl.float32)
    _store_row(x, out, scale_out, row, columns, inside, dim, True, largest)


def _warps(block: int) -> int:
    return 16 if block > 4096 else 8 if block > 1024 else 4


def _result(like: Tensor, quantise: bool) -> tuple[Tensor | Quantised, Tensor, Tensor]:
    """What is returned, and the two buffers that a kernel writes (the second is not touched without `quantise`)."""
    if quantise:
        quantised = Quantised.empty_like(like)
        return quantised, quantised.values, quantised.scale
    plain = torch.empty_like(like)
    return plain, plain, plain


def add_norm(
    tokens: Tensor,
    branch: Tensor | None,
    terms: tuple[Tensor | None, Tensor, Tensor],
    norm: torch.nn.LayerNorm,
    segment: Tensor,
    *,
    quantise: bool = False,
) -> tuple[Tensor, Tensor | Quantised]:
    """tokens + gate x branch, and its modulated LayerNorm, in one pass.

    Args:
        tokens: `[tokens, model_dim]`, contiguous.
        branch: to be gated and added, or None.
        terms: (gate, shift, scale), each `[segments, model_dim]` with one stride; gate is None where branch is.
        norm: affine LayerNorm over model_dim.
        segment: row of `terms` for each token, int32 `[tokens]`.
    """
    rows, dim = tokens.shape
    gate, shift, scale = terms
    result, out, scale_out = _result(tokens, quantise)
    summed = tokens if branch is None else torch.empty_like(tokens)
    block = triton.next_power_of_2(dim)
    with torch.cuda.device_of(tokens):
        _add_norm[(rows,)](
            tokens, branch, gate, norm.weight, norm.bias, shift, scale, segment, summed, out, scale_out,
            shift.stride(0), dim, norm.eps,
            block=block, residual=branch is not None, quantise=quantise, largest=FLOAT8_MAX, num_warps=_warps(block),
        )  # fmt: skip
    return summed, result


def blocks(heads: int, head_dim: int) -> dict[str, int]:
    """How many heads and channels a program of `normed_and_turned` holds.

    Enough for 8 channels a thread however few heads there are: with fewer, Triton would give a thread fewer channels
    and sum a norm's means in another order, so that a rank with some of the heads had other bits than one GPU.
    """
    block_dim = triton.next_power_of_2(head_dim)
    fewest = triton.cdiv(8 * 32 * WARPS, block_dim)
    return {"block_heads": max(triton.next_power_of_2(heads), fewest), "block_dim": block_dim}


def norm_rope_(
    qkv: Tensor, query_norm: torch.nn.LayerNorm, key_norm: torch.nn.LayerNorm, rope: Tensor, query_scale: float
) -> Tensor:
    """LayerNorm over head_dim and RoPE of queries and keys in place; queries times `query_scale` before their rounding.

    Args:
        qkv: `[tokens, 3, heads, head_dim]`, contiguous; changed and returned.
        rope: (cos, sin), float32 `[tokens, head_dim / 2, 2]`.
    """
    tokens, _, heads, head_dim = qkv.shape
    with torch.cuda.device_of(qkv):
        _norm_rope[(tokens, 2)](
            qkv, query_norm.weight, query_norm.bias, key_norm.weight, key_norm.bias, rope, heads, query_norm.eps,
            query_scale, **blocks(heads, head_dim), head_dim=head_dim, num_warps=WARPS,
        )  # fmt: skip
    return qkv


def gelu_quantise(x: Tensor) -> Quantised:
    """Exact GELU of `[rows, columns]` in float8, one scale a row."""
    quantised = Quantised.empty_like(x)
    dim = x.shape[1]
    chunk = min(4096, triton.next_power_of_2(dim))
    with torch.cuda.device_of(x):
        _gelu_quantise[(len(x),)](
            x, quantised.values, quantised.scale, dim, triton.cdiv(dim, chunk) * chunk, chunk, FLOAT8_MAX, num_warps=8
        )
    return quantised


def quantise_rows(x: Tensor) -> Quantised:
    """float8 form of `[rows, columns]`, one scale a row."""
    quantised = Quantised.empty_like(x)
    block = triton.next_power_of_2(x.shape[1])
    with torch.cuda.device_of(x):
        _quantise[(len(x),)](
            x, quantised.values, quantised.scale, x.shape[1], block=block, largest=FLOAT8_MAX, num_warps=_warps(block)
        )
    return quantised
