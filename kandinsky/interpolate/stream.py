"""A stream of frames with frames between them: chunk by chunk, so that memory does not grow with the video.

Frames that were there are passed on as they are, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Protocol, SupportsIndex

import torch
from torch import Tensor

FACTORS = (2, 3, 4)
"""How many frames a second there may be for one."""
Between = Callable[[Tensor, int], Tensor]
"""(frames uint8 [n, H, W, 3], factor) -> those in between, uint8 [n - 1, factor - 1, H, W, 3]."""


class Share(Protocol):
    """Who fills which gaps, where several devices have the same frames; `vae.rows.Rows` is one."""

    def share_of(self, count: int) -> slice:
        """Of `count` gaps, those that are this device's."""
        ...

    def join(self, pieces: Tensor, count: int) -> Tensor | None:
        """Each device's gaps to all of them, `[count, factor - 1, H, W, 3]`; None where another device gets them.

        It is not called again before what it gave two calls before has been read.
        """
        ...


class Everything:
    """For a device that fills all gaps."""

    def share_of(self, count: int) -> slice:
        """All."""
        return slice(0, count)

    def join(self, pieces: Tensor, count: int) -> Tensor:  # noqa: ARG002
        """The same."""
        return pieces


def count_of(frames: int, factor: int | None) -> int:
    """How many frames `frames` of them become."""
    return frames if factor is None or frames == 0 else (frames - 1) * factor + 1


def check_factor(factor: object) -> None:
    """Refuse what is not one of `FACTORS`.

    Raises:
        ValueError: names them.
    """
    whole = not isinstance(factor, bool) and isinstance(factor, SupportsIndex)  # 2.0 is in there too, counting nothing
    if not whole or factor not in FACTORS:
        raise ValueError(f"interpolate={factor!r}: allowed are {', '.join(map(str, FACTORS))}")


def interpolated(
    chunks: Iterable[Tensor],
    factor: int,
    between: Between,
    *,
    stream: torch.cuda.Stream | None = None,
    share: Share = Everything(),  # noqa: B008  # it has no state
) -> Iterator[Tensor]:
    """Chunks with `factor - 1` frames in each gap.

    Args:
        chunks: uint8 `[n, H, W, 3]` each, on one device.
        between: makes the frames.
        stream: on which it works, so that the next chunk can be made meanwhile; chunks are valid there.
        share: which gaps are filled here; all devices have the same chunks.

    Yields:
        uint8 `[factor n, H, W, 3]`, of the first chunk `factor - 1` fewer; nothing where another device gets them.
    """
    last = before = None
    for chunk in chunks:
        if stream is not None:
            stream.wait_stream(torch.cuda.current_stream(chunk.device))
            chunk.record_stream(stream)  # its memory must not be reused before it was looked at
        with nullcontext() if stream is None else torch.cuda.stream(stream):
            frames = chunk if last is None else torch.cat((last, chunk))
            gaps = len(frames) - 1
            mine = share.share_of(gaps)
            made = share.join(between(frames[mine.start : mine.stop + 1], factor), gaps)
            mixed = None if made is None else _mixed(frames, made, first=last is None)
            last = chunk[-1:].clone()  # the chunk may be a buffer that is written again
        if stream is not None:  # the chunk after next is not begun before this one is read: `Share.join`, and memory
            if before is not None:
                torch.cuda.current_stream(chunk.device).wait_event(before)
            before = stream.record_event()
        if mixed is not None:
            yield mixed


def _mixed(frames: Tensor, made: Tensor, *, first: bool) -> Tensor:
    """`made` `[n - 1, factor - 1, H, W, 3]`, after each gap its frame of `[n, H, W, 3]`; with `first` the first too."""
    mixed = torch.cat((made, frames[1:, None]), dim=1).flatten(0, 1)
    return torch.cat((frames[:1], mixed)) if first else mixed
