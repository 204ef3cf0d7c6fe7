"""Attention with operands of 8 bits, on Hopper: queries, keys, softmax's weights and values in float8 e4m3.

Lossy, and only by choice; sums are float32. It is as the FP8 attention of FlashAttention 3 (arXiv 2407.08608) but for
its scales: queries and keys come out of a LayerNorm, so none are measured. A block whose norms allow logits beyond
`MAX_LOGIT` takes `bounded` attention, exact, instead: the error of a logit grows with it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kandinsky.model import bounded

MAX_LOGIT = 50.0
"""In units of log2; weights of 2 in both norms allow 46."""


def attend(qkv: Tensor) -> Tensor:
    """Attention of every token with every token.

    Args:
        qkv: as `bounded.attend_bounded` takes it.

    Returns:
        `[tokens, heads, 64]` bfloat16, contiguous.

    Raises:
        ValueError: another dtype, shape, stride or alignment.
        RuntimeError: not a Hopper GPU.
        OSError: NVRTC is not there.
    """
    bounded.check_qkv(qkv)
    from kandinsky.model import float8_operands, hopper_float8

    with torch.cuda.device(qkv.device):
        operands = float8_operands.operands(qkv)
        return hopper_float8.launch(operands.queries_keys, operands.values)


def attend_projected(
    qkv: Tensor, query_norm: nn.LayerNorm, key_norm: nn.LayerNorm, rope: Tensor, query_scale: float
) -> Tensor:
    """The same from a projection that is neither normed nor turned, whose operands are made in the same pass.

    Args:
        qkv, query_norm, key_norm, rope, query_scale: as `operations.norm_rope` takes them; qkv as `attend` does.

    Returns and raises what `attend` does.
    """
    bounded.check_qkv(qkv)
    from kandinsky.model import float8_operands, hopper_float8

    with torch.cuda.device(qkv.device):
        operands = float8_operands.norm_rope_operands(qkv, query_norm, key_norm, rope, query_scale)
        return hopper_float8.launch(operands.queries_keys, operands.values)


def prepare(device: torch.device) -> None:
    """Compile the kernel for a GPU, as the first call would."""
    from kandinsky.model import hopper_float8

    hopper_float8.kernel(device.index)


def attend_for(bound: float) -> Callable[[Tensor], Tensor]:
    """What a block takes whose |logits| are at most `bound`, in units of log2."""
    return attend if bound <= MAX_LOGIT else bounded.attend_for(bound)
