"""Blocks that come to the device from their file, through a small page-locked ring: the page cache keeps the rest.

A `BlockStream` whose blocks have no buffer of their own on the host. A thread behind the hooks reads a block's bytes
from the file straight into page-locked chunks and copies these into the block's slot (`checkpoint.gpu_copy`), ahead of
the block that needs it. What the process itself holds is the ring; pages of the file are the system's, which keeps as
many as there is room for and gives them up when somebody else needs memory. The bytes are those of the file, so results
are equal to the bit to those of weights that stay.

Method: tiered offload with the disk below the host, as in ZeRO-Infinity (arXiv 2104.07857).
Not here: weights that are not in the file as they are computed with; see `needs.blocks_in_file`.
"""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.gpu_copy import MappedSource, Source, read_all
from kandinsky.errors import CheckpointError
from kandinsky.memory.block_stream import SLOTS, BlockStream, Layout

CHUNK_BYTES = 4 * 2**20
READERS = 8
"""Threads that read one block, each with two chunks."""
AHEAD = 2
"""Blocks that are read at the same time: the last pieces of one and the first of the next."""
RING_BYTES = AHEAD * READERS * 2 * CHUNK_BYTES


class FilePart(Layout):
    """Tensors of one block that lie in a file.

    Args:
        tensors: by their names in the file, memory-mapped from there where they are (see `checkpoint.files`).
        checkpoint: the file; what it does not hold is read from the tensor itself.
    """

    def __init__(self, tensors: Mapping[str, Tensor], checkpoint: Checkpoint):
        super().__init__([*tensors.values()])
        self.path = checkpoint.path
        self._homes = [tensor.data for tensor in self.tensors]
        self._sources: list[Source] = [
            checkpoint.source(name) if name in checkpoint.shapes else MappedSource(tensor.data)
            for name, tensor in tensors.items()
        ]
        for name, source, tensor in zip(tensors, self._sources, self._homes, strict=True):
            assert source.dtype == tensor.dtype, f"{name} is {tensor.dtype}, and {source.dtype} in its file"

    def go_home_(self) -> None:
        """Let the tensors be what they were."""
        for tensor, home in zip(self.tensors, self._homes, strict=True):
            tensor.data = home

    def pin_(self, device: torch.device) -> None:
        """Nothing to be done: the ring's chunks are locked when they are made."""

    def fill_(self, flat: Tensor) -> None:
        """Fill a buffer `uint8 [nbytes or more]` on any device; returns when it is filled.

        Raises:
            CheckpointError: the file has become shorter, or cannot be read any more.
        """
        try:
            jobs = [*zip(self._sources, self.views(flat), strict=True)]
            read_all(jobs, chunk_bytes=CHUNK_BYTES, threads=READERS)
        except (EOFError, OSError) as error:
            raise CheckpointError(f"{self.path} could not be read again: {error}") from error


class FileStream(BlockStream):
    """As `BlockStream`, with parts that are read from their file each time."""

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        packed: Sequence[FilePart],
        device: torch.device,
        *,
        slots: int | None = SLOTS,
        one_pass: bool = False,
    ):
        super().__init__(blocks, packed, device, slots=slots, one_pass=one_pass)
        self._readers: ThreadPoolExecutor | None = None
        self._arrived: dict[int, Future[None]] = {}
        self._closing = threading.Event()

    @property
    def host_bytes(self) -> int:
        """Page-locked."""
        return min(RING_BYTES, sum(part.nbytes for part in self.packed))

    def __enter__(self) -> None:
        self._closing.clear()
        self._readers = ThreadPoolExecutor(AHEAD, thread_name_prefix="blocks from the file")
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        self._closing.set()
        assert self._readers is not None
        self._readers.shutdown(cancel_futures=True)  # the buffers must outlive what is under way
        self._readers = None
        self._arrived.clear()
        super().__exit__(*error)

    def _load(self, index: int) -> None:
        """Begin to read a block into its slot, once that is free in the order of the device's work."""
        assert self._readers is not None
        self._held[index % self.slots] = index
        free = None if self._side is None else self._side.record_event()
        read = partial(self._read, self.packed[index], self._buffers[index % self.slots], free)
        self._arrived[index] = self._readers.submit(read)

    def _read(self, part: Layout, buffer: Tensor, free: Any) -> None:
        """`free`: an event after which the slot may be written to; None without a GPU."""
        if self._closing.is_set():
            return
        if free is None:
            part.fill_(buffer)
            return
        stream = torch.cuda.Stream(self.device)
        stream.wait_event(free)
        with torch.cuda.stream(stream):  # the readers' own streams wait for this one
            part.fill_(buffer)

    def _await(self, index: int) -> None:
        self._arrived[index].result()
