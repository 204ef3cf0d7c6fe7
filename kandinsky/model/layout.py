"""How clips lie in the flat token stream; lengths are Python ints.

The stream is clip after clip, and within a clip its visual tokens followed by its text tokens:

    | visual 0 | text 0 | visual 1 | text 1 | ...

so that each clip attends within one contiguous slice. One clip is the common case; several ("packed") share a call.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Clip:
    """One clip's tokens: `grid` is (frames, rows, columns) of visual tokens."""

    grid: tuple[int, int, int]
    text_tokens: int

    @property
    def visual_tokens(self) -> int:
        frames, rows, columns = self.grid
        return frames * rows * columns

    @property
    def tokens(self) -> int:
        return self.visual_tokens + self.text_tokens


@dataclass(frozen=True)
class TokenLayout:
    """Clips in one stream, and how attention is cut.

    Args:
        clips: in stream order.
        num_groups: (frames, rows, columns) into which each clip's visual grid is cut for attention; (1, 1, 1) is full.
        scale_factor: divides RoPE positions along (frames, rows, columns).

    Raises:
        ValueError: a grid is not a multiple of `num_groups`.
    """

    clips: tuple[Clip, ...]
    num_groups: tuple[int, int, int] = (1, 1, 1)
    scale_factor: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for clip in self.clips:
            if any(size % groups for size, groups in zip(clip.grid, self.num_groups, strict=True)):
                raise ValueError(f"token grid {clip.grid} is not a multiple of num_groups={self.num_groups}")

    @property
    def tokens(self) -> int:
        return sum(clip.tokens for clip in self.clips)

    @property
    def is_one_sequence(self) -> bool:
        """Whether every token attends to every token."""
        return len(self.clips) == 1 and self.num_groups == (1, 1, 1)

    @property
    def segment_lengths(self) -> tuple[int, ...]:
        """Rows of the stream that share a modulation: visual 0, text 0, visual 1, text 1, ..."""
        return tuple(length for clip in self.clips for length in (clip.visual_tokens, clip.text_tokens))


@dataclass(frozen=True)
class Segments:
    """Runs of rows that share a modulation: their lengths, and each row's segment (int32 `[rows]`)."""

    lengths: tuple[int, ...]
    index: Tensor

    @classmethod
    def of(cls, lengths: tuple[int, ...], device: torch.device) -> "Segments":
        index = torch.repeat_interleave(torch.arange(len(lengths), dtype=torch.int32), torch.tensor(lengths))
        return cls(lengths, index.to(device))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """`[rows, ...]` to each segment's rows."""
        return x.split(self.lengths)
