"""Operands of 8-bit attention from a packed projection: two Triton kernels, each reading its input once.

Legend:  qkv: [tokens, 3, heads, 64]      queries_keys: [tokens, 2, heads, 64]      values: [heads, 64, padded tokens]

Queries and keys, in float16 or float8 e4m3, are normed and turned on the way unless they are already; values, in e4m3,
are transposed, and the keys of each 16 stand in the order that `hopper_float8.cu` wants. Both have no backward pass.
"""

# pyright: reportIndexIssue=false, reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
# (Triton's launch syntax; the package is not there on every platform.)

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from kandinsky.model.quantised import FLOAT8

HEAD_DIM = 64
TOKENS = 128
"""Of a tile of values, whose tokens are padded with zeros to a multiple."""
BALANCE = 2.0
"""In float8 queries are so much larger and keys so much smaller, so that both lie among the format's normal numbers."""


@dataclass(frozen=True)
class Operands:
    """See the legend above."""

    queries_keys: Tensor
    values: Tensor


@triton.jit
def _queries_keys(
    qkv, out, query_weight, query_bias, key_weight, key_bias, rope, stride, heads, eps, query_scale, key_scale,
    block_heads: tl.constexpr, dim: tl.constexpr, norm: tl.constexpr,
):  # fmt: skip
    """One program: all heads of one token's query (part 0) or key (part 1)."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, channel = tl.arange(0, block_heads)[:, None], tl.arange(0, dim)[None, :]
    inside = head < heads
    x = tl.load(qkv + row * stride + (part * heads + head) * dim + channel, mask=inside, other=0.0).to(tl.float32)
    if norm:  # as in `kernels._norm_rope`
        centred = x - tl.sum(x, 1)[:, None] / dim
        x = centred * tl.rsqrt(tl.sum(centred * centred, 1) / dim + eps)[:, None]
        if part == 0:
            weight = tl.load(query_weight + channel).to(tl.float32)
            bias = tl.load(query_bias + channel).to(tl.float32)
        else:
            weight = tl.load(key_weight + channel).to(tl.float32)
            bias = tl.load(key_bias + channel).to(tl.float32)
        x = (x * weight + bias).to(qkv.dtype.element_ty).to(tl.float32)
        first, second = tl.split(x.reshape(block_heads, dim // 2, 2))
        angles = rope + row * dim + 2 * tl.arange(0, dim // 2)[None, :]
        cos, sin = tl.load(angles), tl.load(angles + 1)
        x = tl.join(first * cos - second * sin, first * sin + second * cos).reshape(block_heads, dim)
    x *= tl.where(part == 0, query_scale, key_scale)
    tl.store(out + ((row * 2 + part) * heads + head) * dim + channel, x.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["tokens"])
def _values(qkv, out, tokens, padded, stride, heads, block: tl.constexpr, dim: tl.constexpr):
    """One program: a tile of one head's values."""
    tile, head = tl.program_id(0), tl.program_id(1)
    at, channel = tl.arange(0, block), tl.arange(0, dim)
    k = at % 16
    # A thread holds logits of keys 0, 1, 8, 9 of each 16, the next one those of 2, 3, 10, 11: these stand side by side.
    source = tile * block + at - k + tl.where(k % 4 < 2, k // 4 * 2 + k % 4, 6 + k // 4 * 2 + k % 4)
    address = qkv + source.to(tl.int64)[:, None] * stride + (2 * heads + head) * dim + channel[None, :]
    x = tl.load(address, mask=source[:, None] < tokens, other=0.0).to(tl.float32).to(out.dtype.element_ty)
    row = (head * dim + channel[:, None]).to(tl.int64) * padded
    tl.store(out + row + tile * block + at[None, :], tl.trans(x))


def operands(qkv: Tensor, *, dtype: torch.dtype) -> Operands:
    """From queries and keys that are normed, turned and scaled (`bounded.query_scale`) already.

    Args:
        qkv: `[tokens, 3, heads, 64]`, contiguous but for a slice along tokens.
        dtype: of queries and keys, float16 or float8 e4m3.
    """
    made = _empty(qkv, dtype)
    terms = (made.queries_keys,) * 5  # stand for what is not read
    _write(qkv, made, terms, norm=False, eps=0.0, query_scale=1.0)
    return made


def norm_rope_operands(
    qkv: Tensor,
    query_norm: nn.LayerNorm,
    key_norm: nn.LayerNorm,
    rope: Tensor,
    query_scale: float,
    *,
    dtype: torch.dtype,
) -> Operands:
    """From a projection, as `kernels.norm_rope_` would norm and turn it; the other arguments are the same."""
    made = _empty(qkv, dtype)
    terms = (query_norm.weight, query_norm.bias, key_norm.weight, key_norm.bias, rope)
    _write(qkv, made, terms, norm=True, eps=query_norm.eps, query_scale=query_scale)
    return made


def _empty(qkv: Tensor, dtype: torch.dtype) -> Operands:
    tokens, _, heads, dim = qkv.shape
    padded = triton.cdiv(tokens, TOKENS) * TOKENS
    return Operands(
        torch.empty(tokens, 2, heads, dim, dtype=dtype, device=qkv.device),
        torch.empty(heads, dim, padded, dtype=FLOAT8, device=qkv.device),
    )


def _write(
    qkv: Tensor, made: Operands, terms: tuple[Tensor, ...], *, norm: bool, eps: float, query_scale: float
) -> None:
    tokens, _, heads, dim = qkv.shape
    padded, stride = made.values.shape[2], qkv.stride(0)
    balance = BALANCE if made.queries_keys.dtype == FLOAT8 else 1.0
    _queries_keys[(tokens, 2)](
        qkv, made.queries_keys, *terms, stride, heads, eps, query_scale * balance, 1 / balance,
        block_heads=triton.next_power_of_2(heads), dim=dim, norm=norm, num_warps=4,
    )  # fmt: skip
    _values[(padded // TOKENS, heads)](
        qkv, made.values, tokens, padded, stride, heads, block=TOKENS, dim=dim, num_warps=4
    )
