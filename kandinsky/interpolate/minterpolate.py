"""ffmpeg's motion-compensated filter `minterpolate`: frames between frames, on as many cores as there are.

The filter works on one core. So a video is cut into segments of a fixed number of gaps, which do not depend on the
machine and therefore neither do the frames; each is made by an ffmpeg of its own as soon as its frames are there. The
filter begins its search for motion with what it found between earlier frames, so that a segment is given some of these
too, and it makes nothing in its last gap, so that it is given the frame after. Of what it makes, only frames in between
are taken: the others stay as they are. Where a scene ends, the nearer frame is held.
"""

import os
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain, pairwise
from threading import Lock

import numpy as np
import torch

from kandinsky.errors import VideoError
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.interpolate.cuts import are_cuts

RATE = 8
"""Frames a second that the filter is told of; its result does not depend on it."""
TICKS = 100
"""Of the clock that frames are given, between two that are made. Those of a segment's context are a tick apart, so that
the filter looks for motion between them, but makes nothing there, which would take four times as long."""
SMALLEST, BLOCK = 32, 16
"""The filter wants as many pixels of height and width, and moves none that are not in a whole block."""
PIXELS = 2**22
"""Of one frame in all ffmpegs that run at once: each takes 0.4 kB of memory a pixel, so several together 2 GB."""


@dataclass(frozen=True, kw_only=True)
class FilterSettings:
    """How the filter is used; `benchmarks/minterpolate.py` measures others.

    Args:
        options: of the filter, as ffmpeg takes them.
        gaps: of each segment but the last one.
        context: frames before a segment that its ffmpeg is given too.
        at_once: ffmpegs; None is as many as there are cores, and room in memory.
    """

    options: str = "mi_mode=mci:me_mode=bidir:scd=none"
    gaps: int = 4
    context: int = 2
    at_once: int | None = None


USUAL = FilterSettings()


@dataclass(frozen=True)
class Segment:
    """Some gaps of a video.

    Args:
        frames: `context` frames before the first gap, the frames around its gaps, and the one after, which is the last
            again where there is none; uint8 `[height, width, 3]` each.
        context: how many.
    """

    frames: list[np.ndarray]
    context: int

    @property
    def own(self) -> list[np.ndarray]:
        """The frames around its gaps."""
        return self.frames[self.context : -1]


def segments(chunks: Iterable[np.ndarray], settings: FilterSettings = USUAL) -> Iterator[Segment]:
    """Cut chunks of frames, uint8 `[n, height, width, 3]`, into segments; the last one ends with the last frame."""
    frames: list[np.ndarray] = []
    context = 0
    for chunk in chunks:
        for frame in chunk:
            frames.append(frame.copy())  # a chunk is valid until the next one
            if len(frames) == context + settings.gaps + 2:
                yield Segment(frames, context)
                begin = context + settings.gaps  # of the next one
                context = min(begin, settings.context)
                frames = frames[begin - context :]
    if frames:
        yield Segment([*frames, frames[-1]], context)


def cores() -> int:
    """Those that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class Filters:
    """A context manager: ffmpegs that run at once; leaving it ends those that still run.

    Args:
        height, width: of the frames.
        factor: 2, 3 or 4.
    """

    def __init__(self, height: int, width: int, factor: int, settings: FilterSettings = USUAL):
        self.shape = (height, width, 3)
        self.factor = factor
        self.options = settings.options
        self.at_once = settings.at_once or max(1, min(cores(), PIXELS // (height * width)))
        self._pool = ThreadPoolExecutor(self.at_once, "minterpolate")
        self._running: set[subprocess.Popen[bytes]] = set()
        self._left = False
        self._lock = Lock()

    def begin(self, segment: Segment) -> "Future[np.ndarray]":
        """Have its gaps filled.

        Returns:
            Of which comes its own frames but the last one, each followed by those in its gap, uint8
            `[gaps * factor, height, width, 3]`; or a VideoError: ffmpeg failed.
        """
        cuts = cuts_in(segment.own)  # not in the pool: each of its threads would have PyTorch start as many again
        return self._pool.submit(self._filled, segment, cuts)

    def __enter__(self) -> "Filters":
        return self

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._left = True
            for process in self._running:
                process.kill()
        self._pool.shutdown(cancel_futures=True)

    def _filled(self, segment: Segment, cuts: list[bool]) -> np.ndarray:
        made = self._made(segment)
        filled = np.empty((len(cuts), self.factor, *self.shape), np.uint8)
        for gap, (before, after) in enumerate(pairwise(segment.own)):
            filled[gap, 0] = before
            if cuts[gap]:
                filled[gap, 1:] = _held(before, after, self.factor)
            else:
                filled[gap, 1:] = made[gap * self.factor + 1 : (gap + 1) * self.factor]
        return filled.reshape(-1, *self.shape)

    def _made(self, segment: Segment) -> np.ndarray:
        """What the filter makes from the segment's first own frame to its last one."""
        height, width, _ = self.shape
        down, right = (max(SMALLEST - size, -size % BLOCK) for size in (height, width))
        padded = np.pad(np.stack(segment.frames), ((0, 0), (0, down), (0, right), (0, 0)), mode="edge")
        process = self._process(height + down, width + right, segment.context)
        try:
            made, said = process.communicate(padded.tobytes())
        finally:
            with self._lock:
                self._running.discard(process)
        wanted = ((len(segment.own) - 1) * self.factor + 1) * padded[0].size  # before them there may be one of context
        if process.returncode != 0 or len(made) < wanted:
            reason = said.decode(errors="replace").strip() or f"exit status {process.returncode}"
            raise VideoError(f"ffmpeg's minterpolate failed: {reason}")
        return np.frombuffer(made[-wanted:], np.uint8).reshape(-1, *padded.shape[1:])[:, :height, :width]

    def _process(self, height: int, width: int, context: int) -> "subprocess.Popen[bytes]":
        step = self.factor * TICKS
        times = f"settb=1/{RATE * step},setpts='if(lt(N,{context}),N,(N-{context})*{step}+{TICKS})'"
        source = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(RATE), "-i", "-"]
        filters = f"{times},format=yuv444p,minterpolate=fps={RATE * self.factor}:{self.options}"
        target = ["-vf", filters, "-fps_mode", "passthrough", "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
        with self._lock:
            if self._left:
                raise CancelledError
            process = subprocess.Popen(
                [ffmpeg(), "-v", "error", "-filter_threads", "1", *source, *target],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is ours to handle
            )
            self._running.add(process)
        return process


def cuts_in(frames: list[np.ndarray]) -> list[bool]:
    """Whether a scene ends, for each gap between frames."""
    pictures = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2) / 255
    return are_cuts(pictures[:-1], pictures[1:]).tolist()


def _held(before: np.ndarray, after: np.ndarray, factor: int) -> list[np.ndarray]:
    return [before if 2 * index < factor else after for index in range(1, factor)]


def minterpolated(
    chunks: Iterable[np.ndarray], factor: int, *, settings: FilterSettings = USUAL
) -> Iterator[np.ndarray]:
    """Chunks of frames with `factor - 1` frames in each gap.

    Args:
        chunks: uint8 `[n, height, width, 3]` each.

    Yields:
        The same, in chunks of other sizes, some frames later.

    Raises:
        VideoError: ffmpeg failed.
    """
    remaining = segments(chunks, settings)
    first = next(remaining, None)
    if first is None:
        return
    height, width, _ = first.frames[0].shape
    begun: deque[Future[np.ndarray]] = deque()
    last = first.own
    with Filters(height, width, factor, settings) as filters:
        for segment in chain((first,), remaining):
            last = segment.own[-1:]
            if len(segment.own) > 1:
                begun.append(filters.begin(segment))
            while begun and (begun[0].done() or len(begun) > filters.at_once):
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    yield np.stack(last)
