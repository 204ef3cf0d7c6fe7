"""Operands of 8-bit attention from a packed projection: Triton kernels, each reading its input once.

Legend:  qkv: [tokens, 3, heads, 64]      queries_keys: [tokens, 2, heads, 64]      values: [heads, 64, padded tokens]

Queries and keys are rounded to bfloat16 behind norm and RoPE, as without 8 bits, and then to float16, which loses
nothing of the numbers that occur, or to float8 e4m3. So a projection gives the same bits on one device as in pieces on
several. Values, in e4m3, are transposed, and the keys of each 16 stand in the order that `hopper_float8.cu` wants.
Nothing here has a backward pass.
"""

# pyright: reportIndexIssue=false, reportMissingImports=false, reportCallIssue=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
# (Triton's launch syntax; the package is not there on every platform.)

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from kandinsky.model.kernels import WARPS, blocks, normed_and_turned
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
def _norm_rope_queries_keys(
    qkv, out, query_weight, query_bias, key_weight, key_bias, rope, heads, eps, query_scale, balance,
    block_heads: tl.constexpr, head_dim: tl.constexpr, block_dim: tl.constexpr,
):  # fmt: skip
    """One program: all heads of one token's query (part 0) or key (part 1), rounded as `kernels.norm_rope_` does."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, channel = tl.arange(0, block_heads)[:, None], tl.arange(0, block_dim)[None, :]
    inside = (head < heads) & (channel < head_dim)
    x = normed_and_turned(
        qkv, query_weight, query_bias, key_weight, key_bias, rope, row, part, head, channel, inside, heads, eps,
        query_scale, block_heads, head_dim, block_dim,
    ).to(tl.float32)  # fmt: skip
    x *= tl.where(part == 0, balance, 1.0 / balance)
    # Zero, which the compiler does not know: it takes addresses for multiples of 8, so that a thread has 8 channels, as
    # in `kernels.norm_rope_`. With the 16 that an aligned row of bytes allows, means would be summed in another order.
    out += 8 * tl.program_id(2)
    tl.store(out + ((row * 2 + part) * heads + head) * head_dim + channel, x.to(out.dtype.element_ty), mask=inside)


@triton.jit
def _queries_keys(qkv, out, stride, heads, balance, block_heads: tl.constexpr, head_dim: tl.constexpr):
    """The same of queries and keys that are normed and turned already; `stride` is from one token to the next."""
    row, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    head, channel = tl.arange(0, block_heads)[:, None], tl.arange(0, head_dim)[None, :]
    inside = head < heads
    at = qkv + row * stride + (part * heads + head) * head_dim + channel
    x = tl.load(at, mask=inside, other=0.0).to(tl.float32) * tl.where(part == 0, balance, 1.0 / balance)
    tl.store(out + ((row * 2 + part) * heads + head) * head_dim + channel, x.to(out.dtype.element_ty), mask=inside)


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
    tokens, _, heads, dim = qkv.shape
    made = torch.empty(tokens, 2, heads, dim, dtype=dtype, device=qkv.device)
    with torch.cuda.device_of(qkv):
        _queries_keys[(tokens, 2)](
            qkv, made, qkv.stride(0), heads, _balance(dtype),
            block_heads=triton.next_power_of_2(heads), head_dim=dim, num_warps=4,
        )  # fmt: skip
    return Operands(made, _stored_values(qkv))


def norm_rope_operands(
    qkv: Tensor,
    query_norm: nn.LayerNorm,
    key_norm: nn.LayerNorm,
    rope: Tensor,
    query_scale: float,
    *,
    dtype: torch.dtype,
) -> Operands:
    """From a projection: what `operands` makes of it behind `kernels.norm_rope_`, to the bit, in one pass less.

    Args:
        qkv, query_norm, key_norm, rope, query_scale: as `kernels.norm_rope_` takes them; qkv stays as it is.
        dtype: of queries and keys, float16 or float8 e4m3.
    """
    tokens, _, heads, dim = qkv.shape
    made = torch.empty(tokens, 2, heads, dim, dtype=dtype, device=qkv.device)
    with torch.cuda.device_of(qkv):
        _norm_rope_queries_keys[(tokens, 2)](
            qkv, made, query_norm.weight, query_norm.bias, key_norm.weight, key_norm.bias, rope, heads, query_norm.eps,
            query_scale, _balance(dtype), **blocks(heads, dim), head_dim=dim, num_warps=WARPS,
        )  # fmt: skip
    return Operands(made, _stored_values(qkv))


def _balance(dtype: torch.dtype) -> float:
    return BALANCE if dtype == FLOAT8 else 1.0


def _stored_values(qkv: Tensor) -> Tensor:
    tokens, _, heads, dim = qkv.shape
    padded = triton.cdiv(tokens, TOKENS) * TOKENS
    made = torch.empty(heads, dim, padded, dtype=FLOAT8, device=qkv.device)
    with torch.cuda.device_of(qkv):
        _values[(padded // TOKENS, heads)](
            qkv, made, tokens, padded, qkv.stride(0), heads, block=TOKENS, dim=dim, num_warps=4
        )
    return made
