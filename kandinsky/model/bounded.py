"""Exact attention whose softmax needs no running maximum, because its logits are bounded.

Queries and keys come out of a LayerNorm over head_dim and RoPE, a rotation: the norms' weights alone bound every logit.
While that bound is under `MAX_LOGIT`, exp2 of a raw logit neither overflows nor vanishes, and

    out[i] = sum_j exp2(q_i . k_j) v_j / sum_j exp2(q_i . k_j)

is computed as it is written. Queries arrive multiplied by log2(e) / sqrt(head_dim) before their only rounding.

Where the norms' weights allow more, a block takes another form (`attend_for`), so that one block with large norms costs
its own share and no checkpoint leaves the kernel:

- `attend_shifted` up to `MAX_SHIFTED`: the logits of a row are lowered by a number that is known after its first 128
  keys, 90 above the largest of them. Nothing vanishes, and nothing overflows unless a later key's logit is 200 above.
  Rows where one is are flagged, and their tiles are done again with a running maximum.
- `attend_any` beyond: a running maximum for all rows. It costs more than a shift, and less than doing tiles twice.

The form follows from the norms' weights alone: the same bits each time, on one device as on several. The Triton kernel
has two of them, and its running maximum stands for both.

Two kernels with one meaning: `hopper` (CUDA C++, compiled with NVRTC at first use) on Hopper GPUs, `triton_attention`
on others or where NVRTC is missing. Figures of both, and of what else was tried, are in docs/benchmarks.md.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

HEAD_DIM = 64
MAX_LOGIT = 100.0
"""In units of log2: 2^100 summed over a million keys stays below float32's 2^128, and 2^-100 above its smallest."""
MAX_SHIFTED = 2 * MAX_LOGIT
"""A row whose first tile has a logit above zero is safe with a shift up to here."""


@dataclass(frozen=True)
class Logits:
    """How large a block's logits are, in units of log2, as far as its norms tell.

    Args:
        bound: |logit| at most.
        spread: root mean square of a logit whose channels are as large as the norms make them in the mean, and
            independent; see `logit_spread`.
    """

    bound: float
    spread: float

    @classmethod
    def of(cls, query_norm: nn.LayerNorm, key_norm: nn.LayerNorm) -> "Logits":
        """Of a block with such norms."""
        return cls(logit_bound(query_norm, key_norm), logit_spread(query_norm, key_norm))


ANY = Logits(math.inf, math.inf)
"""Where nothing is known of them."""


def largest(logits: Sequence[Logits]) -> Logits:
    """What holds for each of several blocks."""
    return Logits(max(each.bound for each in logits), max(each.spread for each in logits))


def query_scale(head_dim: int) -> float:
    """What queries are multiplied with: softmax's scale in base 2."""
    return math.log2(math.e) / math.sqrt(head_dim)


def logit_bound(query_norm: nn.LayerNorm, key_norm: nn.LayerNorm) -> float:
    """Largest possible |logit| in units of log2, from the norms' weights.

    RoPE turns adjacent pairs of channels, so a logit is at most the sum over pairs of |q pair| |k pair|. A normalised
    vector n has length at most sqrt(head_dim), and a pair of the norm's result at most the pair's largest |weight|
    times |n pair|, plus |bias pair|; the four products that this makes are summed by Cauchy and Schwarz.
    """
    (head_dim,) = query_norm.normalized_shape
    norms = (query_norm, key_norm)
    weights = [norm.weight.detach().double().view(-1, 2).abs().amax(1) for norm in norms]
    biases = [norm.bias.detach().double().view(-1, 2).norm(dim=1) for norm in norms]
    length = math.sqrt(head_dim)
    bound = (
        head_dim * (weights[0] * weights[1]).max()
        + length * (weights[0] * biases[1]).norm()
        + length * (weights[1] * biases[0]).norm()
        + biases[0] @ biases[1]
    )
    return query_scale(head_dim) * bound.item()


def logit_spread(query_norm: nn.LayerNorm, key_norm: nn.LayerNorm) -> float:
    """Root mean square of a logit in units of log2, from the norms' weights; norms of 1 have log2(e).

    A channel's mean square behind its norm is weight^2 + bias^2, as a normalised one's is 1 in the mean over channels.
    The product of a query's channel and a key's has their product, and independent ones add up. RoPE mixes the two
    channels of a pair: the pair's sum is then between that of the products as they are and that of them crosswise.

    A relative error that each channel has by itself moves a logit by that error times this.
    """
    query, key = (
        (norm.weight.detach().double().square() + norm.bias.detach().double().square()).view(-1, 2)
        for norm in (query_norm, key_norm)
    )
    pairs = torch.maximum((query * key).sum(1), (query * key.flip(1)).sum(1))
    return query_scale(query.numel()) * pairs.sum().sqrt().item()


def attend_bounded(qkv: Tensor) -> Tensor:
    """Attention of every token with every token, for logits of at most `MAX_LOGIT`.

    Args:
        qkv: `[tokens, 3, heads, 64]` bfloat16 on a GPU, contiguous but for a slice along tokens, with scaled queries.

    Returns:
        `[tokens, heads, 64]` bfloat16, contiguous.

    Raises:
        ValueError: another dtype, shape, stride or alignment.
    """
    return _attend(qkv, "launch")


def attend_shifted(qkv: Tensor) -> Tensor:
    """Attention for logits of any size, the faster the fewer rows have one of 200 above those of their first tile.

    Arguments and errors are those of `attend_bounded`.
    """
    return _attend(qkv, "launch_shifted")


def attend_any(qkv: Tensor) -> Tensor:
    """Attention of every token with every token, for logits of any size; arguments and errors of `attend_bounded`."""
    return _attend(qkv, "launch_any")


def attend_for(bound: float) -> Callable[[Tensor], Tensor]:
    """The fastest form for a block whose |logits| are at most `bound`, in units of log2."""
    if bound <= MAX_LOGIT:
        return attend_bounded
    return attend_shifted if bound <= MAX_SHIFTED else attend_any


def fit(logits: Logits) -> tuple[Callable[[Tensor], Tensor], None]:
    """`attend_for` as `attention.Fit` wants it: there is no form that takes a projection."""
    return attend_for(logits.bound), None


def _attend(qkv: Tensor, form: str) -> Tensor:
    check_qkv(qkv)
    from kandinsky.model import hopper

    out = torch.empty(qkv.shape[0], *qkv.shape[2:], dtype=qkv.dtype, device=qkv.device)
    with torch.cuda.device(qkv.device):
        if hopper.kernel(qkv.device.index) is not None:  # compiles at the first call
            getattr(hopper, form)(qkv, out)
        else:
            from kandinsky.model import triton_attention

            getattr(triton_attention, form)(qkv, out)
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
