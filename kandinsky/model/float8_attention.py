"""Attention with softmax's weights and values in float8 e4m3, on Hopper.

Lossy, and only by choice. Queries and keys stay in 16 bits: in 8, with norms' weights of 4, they alone would cost six
times the error of all the rest. Sums of weights and values are float32 but for the 128 keys of a tile, logits are
float16. A block whose norms allow logits beyond `MAX_LOGIT` takes `bounded` attention, exact, instead: float16 has 11
bits for them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from kandinsky.model import bounded

MAX_LOGIT = 200.0
"""In units of log2; weights of 4 in both norms allow 185. Logits from 128 on are rounded to steps of 1/8, which moves a
weight by 2.5 % (rms); its own rounding moves it by 3 %."""


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
        form = hopper_float8.FORM
        operands = float8_operands.operands(qkv, dtype=form.dtype)
        return hopper_float8.launch(operands.queries_keys, operands.values, form=form)


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
        form = hopper_float8.FORM
        terms = (qkv, query_norm, key_norm, rope, query_scale)
        operands = float8_operands.norm_rope_operands(*terms, dtype=form.dtype)
        return hopper_float8.launch(operands.queries_keys, operands.values, form=form)


def prepare(device: torch.device) -> None:
    """Compile the kernel for a GPU, as the first call would."""
    from kandinsky.model import hopper_float8

    hopper_float8.kernel(device.index, hopper_float8.FORM)


def attend_for(bound: float) -> Callable[[Tensor], Tensor]:
    """What a block takes whose |logits| are at most `bound`, in units of log2."""
    return attend if bound <= MAX_LOGIT else bounded.attend_for(bound)
