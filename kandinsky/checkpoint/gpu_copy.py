"""Weights from the disk (or its cache) to the GPU as fast as the bus takes them.

Several threads each read pieces into two page-locked chunks in turn and copy these to the GPU on a stream of their own:
reading, the copies of the other chunk and the other threads overlap. 256 MB of host memory for each model that is
read at a time, whatever its size.
Not here: direct reads past the page cache.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from io import FileIO
from queue import Empty, SimpleQueue
from threading import Lock, local
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

THREADS = 8
CHUNK_BYTES = 16 * 2**20


_POSITION = Lock()


class Source(Protocol):
    """One tensor's bytes."""

    @property
    def dtype(self) -> torch.dtype | None: ...

    def read(self, start: int, chunk: Tensor) -> None:
        """Fill `chunk`, uint8 on the host, with the bytes from `start` on."""
        ...

    def sample(self, starts: Sequence[int], rows: Tensor) -> None:
        """Fill each of `rows`, uint8 on the host, with the bytes from one of `starts` on."""
        ...


class OpenFile(FileIO):
    """A file that is open for reading as long as somebody may read it."""

    def __del__(self) -> None:
        self.close()

    def read_at(self, view: memoryview, position: int) -> int:
        """Read some of the file from `position` on into `view`; returns how many bytes."""
        if hasattr(os, "preadv"):
            return os.preadv(self.fileno(), [view], position)
        with _POSITION:  # a system without it: all that share a file's position take turns
            self.seek(position)
            return self.readinto(view) or 0

    @cached_property
    def _own(self) -> local:
        return local()

    def of_this_thread(self) -> "OpenFile":
        """The same file for the thread that asks, opened once: what the system reads ahead is then for it alone."""
        if not hasattr(self._own, "file"):
            self._own.file = self.again()
        return self._own.file

    def again(self) -> "OpenFile":
        """The same file for one reader."""
        try:
            return OpenFile(f"/dev/fd/{self.fileno()}")
        except OSError:  # a system without it
            return OpenFile(os.dup(self.fileno()))


@dataclass(frozen=True)
class FileSource:
    """Bytes of an opened file from `offset` on; another file that takes its name is not read by mistake."""

    file: OpenFile
    offset: int
    dtype: torch.dtype | None

    def read(self, start: int, chunk: Tensor) -> None:
        self.sample([start], chunk[None])

    def sample(self, starts: Sequence[int], rows: Tensor) -> None:
        file = self.file.of_this_thread()
        for start, row in zip(starts, rows.numpy(), strict=True):
            left, position = row.data, self.offset + start
            while left:
                count = file.read_at(left, position)
                if count == 0:
                    size = os.fstat(file.fileno()).st_size
                    raise EOFError(f"{self.file.name} ends at byte {size}, within a tensor")
                left, position = left[count:], position + count


@dataclass(frozen=True)
class MappedSource:
    """A contiguous tensor on the host, of a memory-mapped file."""

    tensor: Tensor

    @property
    def dtype(self) -> torch.dtype:
        return self.tensor.dtype

    def read(self, start: int, chunk: Tensor) -> None:
        self.sample([start], chunk[None])

    def sample(self, starts: Sequence[int], rows: Tensor) -> None:
        content = self.tensor.flatten().view(torch.uint8).numpy()
        for start, row in zip(starts, rows.numpy(), strict=True):
            # numpy's copy stays in this thread, torch's would start a team of threads in each.
            np.copyto(row, content[start : start + len(row)])


def read_all(
    jobs: Sequence[tuple[Source, Tensor]],
    *,
    on_bytes: Callable[[int], object] = lambda _count: None,
    chunk_bytes: int = CHUNK_BYTES,
    threads: int = THREADS,
) -> None:
    """Fill contiguous tensors of one device, each from its source; returns when they are filled.

    Args:
        jobs: sources and targets.
        on_bytes: called with the size of each piece that was read, by the threads that read.
        chunk_bytes: most that a piece has.
        threads: that read.

    Raises:
        EOFError, OSError: of the first source that could not be read.
    """
    pieces: SimpleQueue[tuple[Source, int, Tensor]] = SimpleQueue()
    for source, target in jobs:
        flat = target.flatten().view(torch.uint8)
        for start in range(0, flat.nbytes, chunk_bytes):
            pieces.put((source, start, flat[start : start + chunk_bytes]))
    if pieces.empty():
        return
    device = jobs[0][1].device
    user = torch.cuda.current_stream(device) if device.type == "cuda" else None
    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(_copy_pieces, pieces, user, on_bytes, chunk_bytes) for _ in range(threads)]:
            future.result()


def _copy_pieces(
    pieces: "SimpleQueue[tuple[Source, int, Tensor]]",
    user: torch.cuda.Stream | None,
    on_bytes: Callable[[int], object],
    chunk_bytes: int,
) -> None:
    """`user` is the stream that the targets were made for; None without a GPU."""
    cuda = user is not None
    stream = torch.cuda.Stream(user.device) if user is not None else None
    if stream is not None and user is not None:  # what the targets' memory was used for before must be over
        stream.wait_stream(user)
    chunks = [torch.empty(chunk_bytes, dtype=torch.uint8, pin_memory=cuda) for _ in range(2)]
    copied = [torch.cuda.Event() for _ in range(2)] if cuda else []
    turn = 0
    while True:
        try:
            source, start, target = pieces.get_nowait()
        except Empty:
            break
        if stream is not None:
            copied[turn].synchronize()  # returns at once if nothing was recorded
        chunk = chunks[turn][: len(target)]
        source.read(start, chunk)
        with torch.cuda.stream(stream):
            target.copy_(chunk, non_blocking=True)
        if stream is not None:
            copied[turn].record(stream)
        on_bytes(len(chunk))
        turn = 1 - turn
    if stream is not None:
        stream.synchronize()
