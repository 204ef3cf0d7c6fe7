"""ffmpeg's motion-compensated filter, for frames between frames where no network is to make them.

The filter, `minterpolate`, wants a frame before the first and one after the last: these are repeated. Of what it makes,
only the frames in between are taken, so that the others stay as they are. Where a scene ends, the nearer frame is held.
"""

import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from queue import Empty, Full, Queue
from threading import Thread

import numpy as np
import torch

from kandinsky.errors import VideoError
from kandinsky.interpolate.cuts import are_cuts
from kandinsky.output.video import ffmpeg

RATE = 8
"""Frames a second that the filter is told of; its result does not depend on it."""
FILTER = "mi_mode=mci:mc_mode=aobmc:me_mode=bidir:vsbmc=1:scd=none"
QUEUED_FRAMES = 16


class Filter:
    """A context manager: frames go in by `put`, and what was made comes out of `taken`.

    One thread feeds ffmpeg and another reads, so that neither waits for the other.
    """

    def __init__(self, height: int, width: int, factor: int):
        self.shape = (height, width, 3)
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
        filters = f"format=yuv444p,minterpolate=fps={RATE * factor}:{FILTER}"
        target = ["-vf", filters, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        self._process = subprocess.Popen(
            [ffmpeg(), "-v", "error", *source, *target],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is ours to handle
        )
        self._fed: Queue[bytes | None] = Queue(QUEUED_FRAMES)
        self._made: Queue[np.ndarray | None] = Queue()
        self._threads = [Thread(target=run, name="minterpolate", daemon=True) for run in (self._feed, self._read)]
        for thread in self._threads:
            thread.start()

    def put(self, frame: np.ndarray | None) -> None:
        """Give it a frame; None after the last one.

        Raises:
            VideoError: ffmpeg has ended.
        """
        while self._threads[0].is_alive():
            with suppress(Full):
                return self._fed.put(None if frame is None else frame.tobytes(), timeout=0.1)
        raise VideoError("ffmpeg's minterpolate ended before the last frame")

    def taken(self, *, wait: bool) -> Iterator[np.ndarray]:
        """Frames that are there, or with `wait` all until the last one."""
        with suppress(Empty):
            while (frame := self._made.get(block=wait)) is not None:
                yield frame

    def __enter__(self) -> "Filter":
        return self

    def __exit__(self, *_error: object) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(Full):
            self._fed.put_nowait(None)
        for thread in self._threads:
            thread.join()

    def _feed(self) -> None:
        assert self._process.stdin is not None
        with suppress(OSError), self._process.stdin as pipe:
            while (frame := self._fed.get()) is not None:
                pipe.write(frame)

    def _read(self) -> None:
        assert self._process.stdout is not None
        size = self.shape[0] * self.shape[1] * 3
        with self._process.stdout as pipe:
            while len(data := pipe.read(size)) == size:
                self._made.put(np.frombuffer(data, np.uint8).reshape(self.shape))
        self._made.put(None)


class Gaps:
    """Puts what the filter made between the frames that it was made of."""

    def __init__(self, factor: int):
        self.factor = factor
        self.waiting: deque[np.ndarray] = deque()
        """Frames that were given, from the one before the gap that is being filled."""
        self._index = -factor  # the gap between the first frame and its repetition
        self._between: list[np.ndarray] = []

    def add(self, made: np.ndarray) -> list[np.ndarray]:
        """One more frame of the filter; when it fills its gap, the gap and the frame after it."""
        place = self._index % self.factor
        if self._index >= 0 and place:
            self._between.append(made)
        self._index += 1
        if len(self._between) < self.factor - 1:
            return []
        before, after = self.waiting.popleft(), self.waiting[0]
        filled = self._between if not _is_cut(before, after) else _held(before, after, self.factor)
        self._between = []
        return [*filled, after]


def _is_cut(before: np.ndarray, after: np.ndarray) -> bool:
    first, second = (torch.from_numpy(frame).permute(2, 0, 1)[None] / 255 for frame in (before, after))
    return bool(are_cuts(first, second))


def _held(before: np.ndarray, after: np.ndarray, factor: int) -> list[np.ndarray]:
    return [before if 2 * index < factor else after for index in range(1, factor)]


def minterpolated(chunks: Iterable[np.ndarray], factor: int) -> Iterator[np.ndarray]:
    """Chunks of frames with `factor - 1` frames in each gap.

    Args:
        chunks: uint8 `[n, height, width, 3]` each.

    Yields:
        The same, in chunks of other sizes: the filter looks some frames ahead.

    Raises:
        VideoError: ffmpeg failed.
    """
    remaining = iter(chunks)
    first = next(remaining, None)
    if first is None:
        return
    gaps = Gaps(factor)
    with Filter(first.shape[1], first.shape[2], factor) as made:
        yield first[:1].copy()
        made.put(first[0])
        for chunk in chain((first,), remaining):
            for frame in chunk:
                gaps.waiting.append(frame.copy())  # a chunk is valid until the next one
                made.put(frame)
            done = [frame for each in made.taken(wait=False) for frame in gaps.add(each)]
            if done:
                yield np.stack(done)
        made.put(gaps.waiting[-1])
        made.put(None)
        for each in made.taken(wait=True):
            if done := gaps.add(each):
                yield np.stack(done)
    if len(gaps.waiting) > 1:
        raise VideoError(f"ffmpeg's minterpolate left out {len(gaps.waiting) - 1} gaps")
