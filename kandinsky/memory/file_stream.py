"""Blocks that come to the device from their file, through a small page-locked ring: the page cache keeps the rest.

A `BlockStream` whose blocks have no buffer of their own on the host. Threads behind the hooks read a block's bytes from
the file straight into page-locked chunks and copy these into the block's slot (see `ring`), ahead of the block that
needs it. What the process itself holds is the ring; pages of the file are the system's, which keeps as many as there is
room for and gives them up when somebody else needs memory. The bytes are those of the file, so results are equal to the
bit to those of weights that stay.

Method: tiered offload with the disk below the host, as in ZeRO-Infinity (arXiv 2104.07857).
Not here: weights that are not in the file as they are computed with; see `needs.check_in_file`.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.gpu_copy import MappedSource, Source
from kandinsky.errors import CheckpointError
from kandinsky.memory.block_stream import SLOTS, BlockStream, Layout
from kandinsky.memory.ring import Arrival, Ring

SMALL_BYTES = 2**20
"""Tensors up to this size are kept on the host, side by side: a read for each of a block's norms would cost more."""


class FilePart(Layout):
    """Tensors of one block that lie in a file.

    Args:
        tensors: by their names in the file, memory-mapped from there where they are (see `checkpoint.files`).
        checkpoint: the file; what it does not hold is read from the tensor itself.
    """

    def __init__(self, tensors: Mapping[str, Tensor], checkpoint: Checkpoint):
        ordered = dict(sorted(tensors.items(), key=lambda item: item[1].nbytes > SMALL_BYTES))
        super().__init__([*ordered.values()])
        self.path = checkpoint.path
        self._homes = [tensor.data for tensor in self.tensors]
        self._large = sum(tensor.nbytes <= SMALL_BYTES for tensor in self.tensors)  # index of the first
        self._sources: list[Source] = [
            checkpoint.source(name) if name in checkpoint.shapes else MappedSource(home)
            for name, home in zip(ordered, self._homes, strict=True)
        ]
        for name, source, home in zip(ordered, self._sources, self._homes, strict=True):
            assert source.dtype == home.dtype, f"{name} is {home.dtype}, and {source.dtype} in its file"
        self._small = torch.zeros([*self.offsets, self.nbytes][self._large], dtype=torch.uint8)
        for view, home in zip(self.views(self._small, self._large), self._homes, strict=False):
            view.copy_(home)

    def go_home_(self) -> None:
        """Let the tensors be what they were."""
        for tensor, home in zip(self.tensors, self._homes, strict=True):
            tensor.data = home

    def pin_(self, device: torch.device) -> None:
        """Nothing to be done: the ring's chunks are locked when they are made."""

    def fill_(self, flat: Tensor) -> None:
        """Copy the tensors' bytes to a buffer, and wait for that."""
        ring = Ring(flat.device, readers=1)
        try:
            ring.begin(self.jobs(flat)).wait(torch.cuda.current_stream(flat.device) if flat.is_cuda else None)
        finally:
            ring.close()

    def jobs(self, flat: Tensor) -> list[tuple[Source, Tensor]]:
        """What is to be read to where in a buffer `uint8 [nbytes or more]`."""
        small = [(MappedSource(self._small), flat[: len(self._small)])] if len(self._small) else []
        large = list(zip(self._sources, self.views(flat), strict=True))[self._large :]
        return [*small, *large]


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
        self._parts = packed
        self._ring: Ring | None = None
        self._arrivals: dict[int, Arrival] = {}
        self._changes: Mapping[int, Callable[[], None]] = {}
        self._changed: set[int] = set()

    def change_(self, changes: Mapping[int, Callable[[], None]]) -> None:
        """Set what is done to a block's tensors each time that they have come, before the block runs.

        Args:
            changes: by number of the block; those of before are forgotten.
        """
        assert not self._open
        self._changes = changes

    def __enter__(self) -> None:
        self._ring = Ring(self.device)
        super().__enter__()

    def __exit__(self, *error: object) -> None:
        assert self._ring is not None
        self._ring.close()  # the buffers must outlive what is under way
        self._ring = None
        self._arrivals.clear()
        super().__exit__(*error)

    def _load(self, index: int) -> None:
        """Begin to read a block into its slot, once that is free in the order of the device's work."""
        assert self._ring is not None
        self._held[index % self.slots] = index
        self._changed.discard(index)
        free = None if self._side is None else self._side.record_event()
        self._arrivals[index] = self._ring.begin(self._parts[index].jobs(self._buffers[index % self.slots]), free=free)

    def _await(self, index: int) -> None:
        try:
            self._arrivals[index].wait(None if self._side is None else torch.cuda.current_stream(self.device))
        except (EOFError, OSError) as error:
            raise CheckpointError(f"{self._parts[index].path} could not be read again: {error}") from error
        if index in self._changes and index not in self._changed:
            with torch.inference_mode(False), torch.no_grad():
                self._changes[index]()
            self._changed.add(index)
