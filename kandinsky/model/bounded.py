"""Exact attention whose softmax needs no running maximum, because its logits are bounded.

Queries and keys come out of a LayerNorm over head_dim and RoPE, a rotation: the norms' weights alone bound every logit.
While that bound is under `MAX_LOGIT`, exp2 of a raw logit neither overflows nor vanishes, and

    out[i] = sum_j exp2(q_i . k_j) v_j / sum_j exp2(q_i . k_j)

is computed as it is written. Queries arrive multiplied by log2(e) / sqrt(head_dim) before their only rounding.

Two kernels with one meaning: `hopper` (CUDA C++, compiled with NVRTC at first use) on Hopper GPUs, `triton_attention`
on others or where NVRTC is missing. Figures of both, and of what else was tried, are in docs/benchmarks.md.
"""

import math

import torch
from torch import Tensor, nn

HEAD_DIM = 64
MAX_LOGIT = 100.0
"""In units of log2: 2^100 summed over a million keys stays below float32's 2^128, and 2^-100 above its smallest."""


def query_scale(head_dim: int) -> float:
    """What queries are multiplied with: softmax's scale in base 2."""
    return math.log2(math.e) / math.sqrt(head_dim)


def logit_bound(query_norm: nn.LayerNorm, key_norm: nn.LayerNorm) -> float:
    """Largest possible |logit| in units of log2, from the norms' weights.

    A normalised vector has length at most sqrt(head_dim), so |norm(x)| <= sqrt(head_dim) max|weight| + |bias|.
    """
    (head_dim,) = query_norm.normalized_shape
    lengths = [
        math.sqrt(head_dim) * norm.weight.float().abs().max().item() + norm.bias.float().norm().item()
        for norm in (query_norm, key_norm)
    ]
    return query_scale(head_dim) * lengths[0] * lengths[1]


def attend_bounded(qkv: Tensor) -> Tensor:
    """Attention of every token with every token.

    Args:
        qkv: `[tokens, 3, heads, 64]` bfloat16 on a GPU, contiguous but for a slice along tokens, with scaled queries.

    Returns:
        `[tokens, heads, 64]` bfloat16, contiguous.

    Raises:
        ValueError: another dtype, shape, stride or alignment.
    """
    check_qkv(qkv)
    from kandinsky.model import hopper

    out = torch.empty(qkv.shape[0], *qkv.shape[2:], dtype=qkv.dtype, device=qkv.device)
    with torch.cuda.device(qkv.device):
        if hopper.kernel(qkv.device.index) is not None:  # compiles at the first call
            hopper.launch(qkv, out)
        else:
            from kandinsky.model import triton_attention

            triton_attention.launch(qkv, out)
    return out


def prepare(device: torch.device) -> None:
    """Compile the kernel for a GPU, as the first call would: it takes about a second, and no other thread's time."""
    from kandinsky.model import hopper

    hopper.kernel(device.index)


def without_triton(device: torch.device) -> bool:
    """Whether a GPU has the kernel that is compiled with NVRTC; others have Triton's."""
    from kandinsky.model import hopper

    return hopper.kernel(device.index) is not None


def check_qkv(qkv: Tensor) -> None:
    """Refuse what the kernels cannot read."""
    tokens, parts, heads, dim = qkv.shape
    if (parts, dim, qkv.dtype) != (3, HEAD_DIM, torch.bfloat16) or not tokens or not qkv.is_cuda:
        found = f"{qkv.dtype} {list(qkv.shape)} on {qkv.device}"
        raise ValueError(f"bounded attention takes bfloat16 [tokens, 3, heads, {HEAD_DIM}] on a GPU, got {found}")
    if qkv.stride()[1:] != (heads * HEAD_DIM, HEAD_DIM, 1) or qkv.stride(0) % 8 or qkv.data_ptr() % 16:
        raise ValueError(
            f"bounded attention: each token must be contiguous and 16-byte aligned, strides {qkv.stride()}"
        )
