"""A stream of frames with frames between them: chunk by chunk, so that memory does not grow with the video.

Frames that were there are passed on as they are, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext

import torch
from torch import Tensor

FACTORS = (2, 3, 4)
"""How many frames a second there may be for one."""
Between = Callable[[Tensor, int], Tensor]
"""(frames uint8 [n, H, W, 3], factor) -> those in between, uint8 [n - 1, factor - 1, H, W, 3]."""


def count_of(frames: int, factor: int | None) -> int:
    """How many frames `frames` of them become."""
    return frames if factor is None or frames == 0 else (frames - 1) * factor + 1


def check_factor(factor: object) -> None:
    """Refuse what is not one of `FACTORS`.

    Raises:
        ValueError: names them.
    """
    if isinstance(factor, bool) or factor not in FACTORS:
        raise ValueError(f"interpolate={factor!r}: allowed are {', '.join(map(str, FACTORS))}")


def interpolated(
    chunks: Iterable[Tensor], factor: int, between: Between, *, stream: torch.cuda.Stream | None = None
) -> Iterator[Tensor]:
    """Chunks with `factor - 1` frames in each gap.

    Args:
        chunks: uint8 `[n, H, W, 3]` each, on one device.
        between: makes the frames.
        stream: on which it works, so that the next chunk can be made meanwhile; chunks are valid there.

    Yields:
        uint8 `[factor n, H, W, 3]`, of the first chunk `factor - 1` fewer.
    """
    last = None
    for chunk in chunks:
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(chunk.device))
            chunk.record_stream(stream)  # its memory must not be reused before it was looked at
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            frames = chunk if last is None else torch.cat((last, chunk))
            made = between(frames, factor)
            mixed = torch.cat((made, frames[1:, None]), dim=1).flatten(0, 1)
            mixed = torch.cat((frames[:1], mixed)) if last is None else mixed
            last = chunk[-1:].clone()  # the chunk may be a buffer that is written again
        yield mixed
