"""Reading ahead through a small page-locked ring: threads that fill buffers on a device from files, block after block.

Each thread has two page-locked chunks and a stream of its own. It reads a piece into one of them, queues its copy, and
goes on with the next piece, of the next block too: nothing is waited for between blocks. Who needs a block waits for
its `Arrival`, on the host until all copies are queued, on the device until they are done.
"""

import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, SimpleQueue
from typing import Any

import torch
from torch import Tensor

from kandinsky.checkpoint.gpu_copy import Source

CHUNK_BYTES = 16 * 2**20
READERS = 8
"""Of those measured on H100 and H200 (docs/benchmarks.md); more threads disturb the one that launches kernels."""
RING_BYTES = 2 * READERS * CHUNK_BYTES


@dataclass
class Arrival:
    """One block on its way.

    Args:
        left: pieces that are not queued yet.
        free: an event of the device after which the target may be written to; None without a GPU.
    """

    left: int
    free: Any = None
    _events: dict[int, Any] = field(default_factory=dict)
    _error: Exception | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _queued: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        if self.left == 0:
            self._queued.set()

    def piece_done(self, reader: int, event: Any) -> None:
        """A piece's copy is queued; `event` comes after it on the stream of this reader."""
        with self._lock:
            self._events[reader] = event
            self.left -= 1
            if self.left == 0:
                self._queued.set()

    def fail(self, error: Exception) -> None:
        """A piece could not be read."""
        with self._lock:
            self._error = self._error or error
            self._queued.set()

    def wait(self, stream: Any) -> None:
        """Let `stream` go on when the block is there; None waits on the host alone.

        Raises:
            EOFError, OSError: it could not be read.
        """
        self._queued.wait()
        if self._error is not None:
            raise self._error
        for event in self._events.values():
            if event is not None and stream is not None:
                stream.wait_event(event)


class Ring:
    """Threads that read; `close` it in the thread that made it.

    Args:
        device: of the targets.
        readers: threads.
        chunk_bytes: most that a piece has.
    """

    def __init__(self, device: torch.device, *, readers: int = READERS, chunk_bytes: int = CHUNK_BYTES):
        self.device = device
        self.chunk_bytes = chunk_bytes
        self._pieces: SimpleQueue[tuple[Source, int, Tensor, Arrival] | None] = SimpleQueue()
        cuda = device.type == "cuda"
        with torch.inference_mode(False):
            chunks = torch.empty(readers, 2, chunk_bytes, dtype=torch.uint8, pin_memory=cuda)
        self._threads = [threading.Thread(target=self._read, args=own, daemon=True) for own in enumerate(chunks)]
        for thread in self._threads:
            thread.start()

    @torch.inference_mode(False)  # the readers are outside of it, and write to views that are made here
    def begin(self, jobs: Sequence[tuple[Source, Tensor]], *, free: Any = None) -> Arrival:
        """Begin to fill contiguous tensors, each from its source, after all that was begun before.

        Args:
            jobs: sources and targets.
            free: see `Arrival`.
        """
        pieces: list[tuple[Source, int, Tensor]] = []
        for source, target in jobs:
            flat = target.flatten().view(torch.uint8)
            starts = range(0, flat.nbytes, self.chunk_bytes)
            pieces += [(source, start, flat[start : start + self.chunk_bytes]) for start in starts]
        arrival = Arrival(len(pieces), free)
        for source, start, target in pieces:
            self._pieces.put((source, start, target, arrival))
        return arrival

    def close(self) -> None:
        """End: what was not begun is not read any more, and no target is written to after this."""
        with suppress(Empty):
            while True:
                self._pieces.get_nowait()
        for _ in self._threads:
            self._pieces.put(None)
        for thread in self._threads:
            thread.join()

    def _read(self, reader: int, chunks: Tensor) -> None:
        """`chunks`: uint8 [2, chunk_bytes], page-locked."""
        stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None
        copied: list[Any] = [None, None]
        turn = 0
        while (piece := self._pieces.get()) is not None:
            source, start, target, arrival = piece
            chunk = chunks[turn, : len(target)]
            try:
                if copied[turn] is not None:
                    copied[turn].synchronize()
                source.read(start, chunk)
                if stream is not None and arrival.free is not None:
                    stream.wait_event(arrival.free)
                with torch.cuda.stream(stream):
                    target.copy_(chunk, non_blocking=True)
                copied[turn] = None if stream is None else stream.record_event()
            except Exception as error:  # noqa: BLE001  # it is raised where the block is waited for
                arrival.fail(error)
                continue
            arrival.piece_done(reader, copied[turn])
            turn = 1 - turn
        if stream is not None:
            stream.synchronize()
