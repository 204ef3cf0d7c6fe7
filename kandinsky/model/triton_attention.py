"""The Triton kernel of `bounded` attention: tiles through tensor descriptors, the ragged last one after the loop."""

# pyright: reportIndexIssue=false, reportMissingImports=false
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false
# (Triton's launch syntax; the package is not there on every platform.)

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

HEAD_DIM = 64
KEYS = 64


@triton.jit
def _exp2(x):
    # tl.exp2 handles denormal results in three more instructions; here they may be flushed to zero.
    return tl.inline_asm_elementwise("ex2.approx.ftz.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _step(q, k, v, acc, total, top, left, masked: tl.constexpr, running: tl.constexpr):
    logits = tl.dot(q, k.T)
    if masked:
        logits = tl.where(tl.arange(0, k.shape[0])[None, :] < left, logits, -float("inf"))
    if running:
        higher = tl.maximum(top, tl.max(logits, 1))
        factor = _exp2(top - higher)
        acc, total, top = acc * factor[:, None], total * factor, higher
        logits -= higher[:, None]
    weights = _exp2(logits)
    return tl.dot(weights.to(tl.bfloat16), v, acc), total + tl.sum(weights, 1), top


@triton.jit(do_not_specialize=["tokens"])
def _attend(
    q_desc, k_desc, v_desc, out, tokens, heads,
    rows_: tl.constexpr, keys_: tl.constexpr, dim: tl.constexpr, running: tl.constexpr,
):  # fmt: skip
    tile, head = tl.program_id(0), tl.program_id(1)
    key_at, value_at = (heads + head) * dim, (2 * heads + head) * dim
    q = q_desc.load([tile * rows_, head * dim])
    acc = tl.zeros([rows_, dim], tl.float32)
    total = tl.zeros([rows_], tl.float32)
    top = tl.full([rows_], -float("inf"), tl.float32)
    whole = tokens // keys_
    for j in tl.range(0, whole):
        k, v = k_desc.load([j * keys_, key_at]), v_desc.load([j * keys_, value_at])
        acc, total, top = _step(q, k, v, acc, total, top, keys_, False, running)
    left = tokens - whole * keys_
    if left > 0:
        k, v = k_desc.load([whole * keys_, key_at]), v_desc.load([whole * keys_, value_at])
        acc, total, top = _step(q, k, v, acc, total, top, left, True, running)
    rows = tile * rows_ + tl.arange(0, rows_)
    at = out + (rows.to(tl.int64)[:, None] * heads + head) * dim + tl.arange(0, dim)[None, :]
    tl.store(at, (acc * (1 / total)[:, None]).to(tl.bfloat16), mask=rows[:, None] < tokens)


def rows_on(capability: tuple[int, int]) -> int:
    """Query rows of a tile, by the GPU's compute capability.

    Of 128 rows, hundreds of bytes of each thread's registers spill before 9.0, and none of 64 (docs/gpus.md).
    """
    return 128 if capability >= (9, 0) else 64


def launch(qkv: Tensor, out: Tensor) -> None:
    """Queue the kernel for logits of at most `bounded.MAX_LOGIT` on the current stream.

    Args:
        qkv, out: see `bounded.attend_bounded`.
    """
    _launch(qkv, out, running=False)


def launch_any(qkv: Tensor, out: Tensor) -> None:
    """Queue the kernel for logits of any size, with a running maximum; tensors as for `launch`."""
    _launch(qkv, out, running=True)


launch_shifted = launch_any
"""A running maximum is cheaper here than a shift whose failures are done again."""


def _launch(qkv: Tensor, out: Tensor, *, running: bool) -> None:
    assert qkv.dtype == torch.bfloat16
    tokens, _, heads, _ = qkv.shape
    rows = rows_on(torch.cuda.get_device_capability(qkv.device))
    shape, strides = [tokens, 3 * heads * HEAD_DIM], [qkv.stride(0), 1]
    q, k, v = (TensorDescriptor(qkv, shape, strides, [block, HEAD_DIM]) for block in (rows, KEYS, KEYS))
    with torch.cuda.device_of(qkv):
        _attend[(triton.cdiv(tokens, rows), heads)](
            q, k, v, out, tokens, heads, rows, KEYS, HEAD_DIM, running, num_warps=4, num_stages=3
        )
