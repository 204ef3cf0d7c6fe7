"""Modules whose weights stand in pinned host memory and come to the device one after the other while they are used.

Each module ("block") is packed into one flat host buffer. On the device there are `slots` buffers; block i uses slot
i % slots, and while the stream is open its parameters are views of that slot. A hook before a block lets the compute
stream wait for the block's copy; a hook after it lets a side stream load the next block that uses the same slot. With
as many slots as blocks everything is copied once ("staged"); with fewer, round and round, or until the last block is
there if one pass is all there is ("blocks"). The kernels and the bytes that they read are those of weights that stay on
the device, so results are equal to the bit.

On a CPU the same bookkeeping runs with plain copies, which is how it is tested. Method: prefetch on a copy stream, as
in ZeRO-Infinity (arXiv 2104.07857) and accelerate's offload hooks; these copy tensor by tensor and do not run ahead.
Not here: training, several streams of one module at once.
"""

import warnings
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

SLOTS = 3
"""Blocks on the device at once in "blocks" mode: one that runs, one ready, one on its way."""
PAGE = 4096
ALIGNMENT = 256
"""Bytes; cuBLAS looks at alignment up to this much, so its choice is the one for tensors allocated alone."""
THREADS = 8
"""Copy from the (memory-mapped) file into a host buffer: one thread is bound by page faults."""


class Layout(ABC):
    """How the tensors of one block lie in one flat buffer.

    Args:
        tensors: parameters and buffers.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        self.tensors = list(tensors)
        self.layout = [(tensor.dtype, tensor.shape) for tensor in tensors]
        self.offsets: list[int] = []
        end = 0
        for tensor in tensors:
            self.offsets.append(end)
            end += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        self.nbytes = -(-end // PAGE) * PAGE

    def views(self, flat: Tensor, count: int | None = None) -> Iterator[Tensor]:
        """Each tensor, or the first `count`, as it lies in a buffer `uint8 [nbytes or more]`."""
        for (dtype, shape), offset in [*zip(self.layout, self.offsets, strict=True)][:count]:
            yield flat[offset : offset + shape.numel() * dtype.itemsize].view(dtype).view(shape)

    def alias_(self, flat: Tensor) -> None:
        """Let the tensors be views of `flat`."""
        for tensor, view in zip(self.tensors, self.views(flat), strict=True):
            tensor.data = view

    @abstractmethod
    def go_home_(self) -> None:
        """Let the tensors be what they are while no stream is open."""

    @abstractmethod
    def pin_(self, device: torch.device) -> None:
        """Make what is on the host ready for copies to `device` that run beside computation."""

    @abstractmethod
    def fill_(self, flat: Tensor) -> None:
        """Copy the tensors' bytes to a buffer `uint8 [nbytes or more]` on the device."""


class Packed(Layout):
    """Tensors of one block in one flat host buffer.

    Args:
        tensors: parameters and buffers; from now on they are views of the buffer, or of what `alias_` is given.
    """

    def __init__(self, tensors: Sequence[Tensor]):
        super().__init__(tensors)
        self.host = _whole_pages(self.nbytes)
        for tensor, view in zip(self.tensors, self.views(self.host), strict=True):
            view.copy_(tensor)
        self.go_home_()

    def go_home_(self) -> None:
        """Let the tensors be views of the host buffer."""
        self.alias_(self.host)

    def pin_(self, device: torch.device) -> None:
        """Page-lock the buffer."""
        pin_(self.host, device)

    def fill_(self, flat: Tensor) -> None:
        """Queue a copy of the buffer on the current stream."""
        flat[: self.nbytes].copy_(self.host, non_blocking=True)


def _whole_pages(nbytes: int) -> Tensor:
    """A host buffer of whole pages that shares none with another: each can be locked once only."""
    room = torch.empty(nbytes + PAGE, dtype=torch.uint8)
    start = -room.data_ptr() % PAGE
    return room[start : start + nbytes]


def pin_(buffer: Tensor, device: torch.device) -> None:
    """Page-lock a host buffer where it is, until it is freed, so that copies to `device` run beside computation.

    Pinned memory from PyTorch's own allocator is rounded up to a power of two: up to twice the weights.
    """
    runtime: Any = torch.cuda.cudart()
    with torch.cuda.device(device):  # a thread's own is the first GPU, where this would make a context
        status = int(runtime.cudaHostRegister(buffer.data_ptr(), buffer.nbytes, 0))
        if status != 0:
            warnings.warn(f"host memory could not be pinned (CUDA error {status}): copies will be slow", stacklevel=2)
            with suppress(RuntimeError):  # the next launch reports the error again, and with that clears it
                torch.zeros(1, device=device)
            return
    release = weakref.finalize(buffer.untyped_storage(), runtime.cudaHostUnregister, buffer.data_ptr())
    release.atexit = False  # the driver does it then, and may be gone before us


def pack(blocks: Iterable[Sequence[Tensor]]) -> list[Packed]:
    """The tensors of each block in a buffer of its own, several at a time."""
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(Packed, blocks))


class BlockStream:
    """Blocks that come and go. Use as a context manager around passes over them.

    Args:
        blocks: modules, in the order in which they run, each once a pass.
        packed: of each block, what is to come and go.
        device: where the blocks run.
        slots: blocks on the device at once; None is all.
        one_pass: each time there is one pass; the first blocks are not loaded for another.
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        packed: Sequence[Layout],
        device: torch.device,
        *,
        slots: int | None = SLOTS,
        one_pass: bool = False,
    ):
        self.device = device
        self.one_pass = one_pass
        self.packed = packed
        self.slots = min(slots or len(blocks), len(blocks))
        if device.type == "cuda":
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda part: part.pin_(device), packed))
        self._side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._buffers: list[Tensor] = []
        self._held: dict[int, int] = {}  # slot to block
        self._ready: dict[int, torch.cuda.Event] = {}
        self._open = False
        for index, block in enumerate(blocks):
            block.register_forward_pre_hook(partial(self._before, index))
            block.register_forward_hook(partial(self._after, index))

    def __enter__(self) -> None:
        assert not self._open, "a block stream is open already"
        size = max(packed.nbytes for packed in self.packed)
        # Not tensors of inference mode: a parameter must be able to leave it.
        with torch.inference_mode(False):
            self._buffers = [torch.empty(size, dtype=torch.uint8, device=self.device) for _ in range(self.slots)]
        if self._side is not None:  # what the buffers' memory was used for before must be over
            self._side.wait_stream(torch.cuda.current_stream(self.device))
        for index, packed in enumerate(self.packed):
            packed.alias_(self._buffers[index % self.slots])
        for index in range(self.slots):
            self._load(index)
        self._open = True

    def __exit__(self, *_error: object) -> None:
        for packed in self.packed:
            packed.go_home_()
        if self._side is not None:  # the last copies may be on their way still
            torch.cuda.current_stream(self.device).wait_stream(self._side)
        self._open = False
        self._ready.clear()
        self._buffers.clear()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()  # what comes next wants pieces of other sizes

    def _load(self, index: int) -> None:
        """Begin to copy a block into its slot."""
        packed = self.packed[index]
        with torch.cuda.stream(self._side), torch.inference_mode(False):
            packed.fill_(self._buffers[index % self.slots])
        self._held[index % self.slots] = index
        if self._side is not None:
            self._ready[index] = torch.cuda.Event()
            self._ready[index].record(self._side)

    def _before(self, index: int, *_hook: object) -> None:
        assert self._open, "a block ran outside of its block stream"
        assert self._held[index % self.slots] == index, f"block {index} ran out of turn: its weights are not here"
        self._await(index)

    def _await(self, index: int) -> None:
        """Let the block's computation wait for its copy."""
        if self._side is not None:
            torch.cuda.current_stream(self.device).wait_event(self._ready[index])

    def _after(self, index: int, *_hook: object) -> None:
        following = index + self.slots
        if following >= len(self.packed):
            following = index % self.slots  # of the next pass
            if self.one_pass or following == index:  # or it is alone in its slot
                return
        if self._side is not None:
            self._side.wait_event(torch.cuda.current_stream(self.device).record_event())
        self._load(following)


Home = AbstractContextManager[None]
"""Around every use of a module: what brings its weights and takes them away again."""
