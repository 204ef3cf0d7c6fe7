"""What is computed once for a call of the DiT and shared by its steps.

Legend: see `dit`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from kandinsky.model.layout import Segments, TokenLayout


@dataclass(frozen=True)
class ModulationTable:
    """Modulation of some timesteps.

    Args:
        blocks: `[steps, transformer blocks, segments, 6, model_dim]`; segments in stream order.
        out: shift and scale of the last norm, `[steps, clips, 2, model_dim]`.
    """

    blocks: Tensor
    out: Tensor


@dataclass(frozen=True)
class Context:
    """What every step of one call shares.

    Args:
        layout: clips in the stream.
        text: text tokens of each clip, `[text_tokens, model_dim]`.
        rope: (cos, sin), float32 `[tokens, head_dim / 2, 2]`.
        modulation: of every step.
        segments, visual_segments: rows that share a modulation, in the stream and in its visual part.
        attend: `(qkv [tokens, 3, heads, head_dim], attend=Attend, dilated=bool) -> [tokens, heads, head_dim]`.
    """

    layout: TokenLayout
    text: tuple[Tensor, ...]
    rope: Tensor
    modulation: ModulationTable
    segments: Segments
    visual_segments: Segments
    attend: Callable[..., Tensor]
