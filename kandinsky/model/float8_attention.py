"""Attention with softmax's weights and values in float8 e4m3, on Hopper.

Lossy. Sums of weights and values are float32 but for the 128 keys of a tile, logits are float16. That much costs an
error of 0.03 to 0.043 whatever the norms are. Queries and keys stay in 16 bits where 8 would cost more than a little:
an error of a channel moves a logit the more the larger the logits are, so that norms' weights of 1, 2 and 4 cost 0.04,
0.11 and 0.17 (docs/benchmarks.md). Each block takes what its own norms allow:

- queries and keys in e4m3 while the spread of their logits is under `MAX_SPREAD`
- in float16 while no logit can be beyond `MAX_LOGIT`
- beyond, `bounded` attention, which is exact: float16 has 11 bits for logits
"""

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from kandinsky.model import bounded
from kandinsky.model.bounded import Logits
from kandinsky.model.quantised import FLOAT8

ERROR = 0.06
"""Relative, against float32, at most: for random values, which average out to nothing and leave their rounding."""
MAX_ERROR = 0.08
"""In a trial. Most of an output is the mean of all values, one for all queries of a head, so that errors over few heads
scatter: by 2 % over 16 heads of 64 channels, by 6 % over two."""
MAX_SPREAD = 1.5
"""In units of log2, of a row's logits; norms of 1 have 1.44. Queries and keys in e4m3 move a logit by 3.9 % of it (rms)
and a weight by 2.7 % for each unit: 0.041 here, which makes 0.058 with the 0.041 of weights and values."""
LARGE_ROWS = 0.15
"""A row whose query lies in its norm's largest channels has a spread of up to an eighth of the bound, and an error as
much larger; where few channels are large, such rows make most of the error. Weighed like this beside the mean square,
both tell it for norms with 0 to 16 large channels (`benchmarks/attention.py` has three of them)."""
MAX_LOGIT = 200.0
"""In units of log2; weights of 4 in both norms allow 185. Logits from 128 on are rounded to steps of 1/8, which moves a
weight by 2.5 % (rms); its own rounding moves it by 3 %."""


def attend(qkv: Tensor, *, dtype: torch.dtype) -> Tensor:
    """Attention of every token with every token.

    Args:
        qkv: as `bounded.attend_bounded` takes it.
        dtype: of queries and keys, float16 or float8 e4m3.

    Returns:
        `[tokens, heads, 64]` bfloat16, contiguous.

    Raises:
        ValueError: another dtype, shape, stride or alignment of qkv.
        RuntimeError: not a Hopper GPU.
        OSError: NVRTC is not there.
    """
    bounded.check_qkv(qkv)
    from kandinsky.model import float8_operands, hopper_float8

    with torch.cuda.device(qkv.device):
        made = float8_operands.operands(qkv, dtype=dtype)
        return hopper_float8.launch(made.queries_keys, made.values)


def attend_projected(
    qkv: Tensor,
    query_norm: nn.LayerNorm,
    key_norm: nn.LayerNorm,
    rope: Tensor,
    query_scale: float,
    *,
    dtype: torch.dtype,
) -> Tensor:
    """The same, to the bit, from a projection that is neither normed nor turned: its operands are made on the way.

    Args:
        qkv, query_norm, key_norm, rope, query_scale: as `operations.norm_rope` takes them; qkv contiguous bfloat16.
        dtype: of queries and keys, float16 or float8 e4m3.

    Returns and raises what `attend` does.
    """
    bounded.check_qkv(qkv)
    from kandinsky.model import float8_operands, hopper_float8

    with torch.cuda.device(qkv.device):
        made = float8_operands.norm_rope_operands(qkv, query_norm, key_norm, rope, query_scale, dtype=dtype)
        return hopper_float8.launch(made.queries_keys, made.values)


def prepare(device: torch.device) -> None:
    """Compile the kernel's forms for a GPU, as the first calls would."""
    from kandinsky.model import hopper_float8

    for dtype in hopper_float8.DTYPES:
        hopper_float8.kernel(device.index, dtype)


def fit(logits: Logits) -> tuple[Callable[[Tensor], Tensor], Callable[..., Tensor] | None]:
    """What a block with such logits takes: as `attend`, and as `attend_projected` where there is that."""
    if not logits.bound <= MAX_LOGIT:
        return bounded.fit(logits)
    largest_row = logits.bound / math.sqrt(bounded.HEAD_DIM)
    spread = math.hypot(logits.spread * math.sqrt(1 - LARGE_ROWS), largest_row * math.sqrt(LARGE_ROWS))
    dtype = FLOAT8 if spread <= MAX_SPREAD else torch.float16
    return partial(attend, dtype=dtype), partial(attend_projected, dtype=dtype)
