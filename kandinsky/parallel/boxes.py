"""What ranks send each other in the middle of a step: into named boxes, so that sending overlaps with arithmetic.

A box is a receive buffer that every rank has. Two ways of delivery with one meaning:

* `GroupBox`: point-to-point messages of the process group (NCCL, gloo); works everywhere.
* `Mailbox`: for GPUs of one host that see each other's memory. The sender's copy engine writes straight into the other
  GPU's box (PyTorch's symmetric memory), which takes no multiprocessor from the kernels that run meanwhile; NCCL's
  kernels do, and wait for theirs. Multicast is not used.

Whoever uses a box must not send into it again before its reader is known to be done; each user says why that holds.
"""

import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor

from kandinsky.parallel.ranks import Ranks

_log = logging.getLogger(__name__)
Wait = Callable[[], object]


@dataclass(frozen=True)
class Letter:
    """A contiguous tensor, the rank that it goes to, and where in that rank's box (bytes)."""

    tensor: Tensor
    rank: int
    offset: int


class Box(Protocol):
    """One receive buffer on every rank."""

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    def view(self, offset: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A part of this rank's box; `offset` in bytes."""
        ...

    def exchange(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]], *, channel: int = 0) -> Wait:
        """Begin to send and receive; call what is returned before what was received is read.

        Args:
            receives: views of this rank's box, and the rank that each is from.
            channel: tells exchanges apart that are under way at the same time.
        """
        ...

    def deliver(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]]) -> None:
        """As `exchange`, all at once, for small letters that are waited for anyway; they need not be contiguous."""
        ...


class GroupBox:
    """A box that is filled by messages of the default process group."""

    def __init__(self, size: int, device: torch.device):
        self.buffer = torch.empty(size, dtype=torch.uint8, device=device)
        self.size = size

    def view(self, offset: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        count = torch.Size(shape).numel() * dtype.itemsize
        return self.buffer[offset : offset + count].view(dtype).view(*shape)

    def exchange(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]], *, channel: int = 0) -> Wait:
        operations = [dist.P2POp(dist.isend, letter.tensor, letter.rank, tag=channel) for letter in sends]
        operations += [dist.P2POp(dist.irecv, tensor, rank, tag=channel) for tensor, rank in receives]
        works = dist.batch_isend_irecv(operations) if operations else []

        def wait() -> None:
            for work in works:
                work.wait()

        return wait

    def deliver(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]]) -> None:
        letters = [Letter(letter.tensor.contiguous(), letter.rank, letter.offset) for letter in sends]
        self.exchange(letters, receives)()


class Mailbox:
    """A box in symmetric memory, filled by the senders' copy engines."""

    def __init__(self, size: int, device: torch.device):
        from torch.distributed import _symmetric_memory as symmetric

        self.size = size
        self.buffer = symmetric.empty(size, dtype=torch.uint8, device=device)
        # It is filled with zeros on the current stream. No rank may pass the rendezvous before that is done everywhere:
        # the zeros would wipe out the first signals, and whoever waits for those would wait for ever.
        torch.cuda.synchronize(device)
        group = dist.group.WORLD
        assert group is not None
        self.handle: Any = symmetric.rendezvous(self.buffer, group)
        self.stream = torch.cuda.Stream(device, priority=-1)

    def view(self, offset: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self.at(self.handle.rank, offset, shape, dtype)

    def at(self, rank: int, offset: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """A part of a rank's box, in that rank's memory."""
        return self.handle.get_buffer(rank, tuple(shape), dtype, offset // dtype.itemsize)

    def exchange(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]], *, channel: int = 0) -> Wait:
        self.stream.wait_stream(torch.cuda.current_stream(self.buffer.device))
        with torch.cuda.stream(self.stream):
            for letter in sends:
                self.push(letter, channel)
        sources = {rank for _, rank in receives}

        def wait() -> None:
            for source in sorted(sources):
                self.handle.wait_signal(source, channel)

        return wait

    def deliver(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]]) -> None:
        for letter in sends:
            self.push(letter, 0)
        for _, source in receives:
            self.handle.wait_signal(source, 0)

    def push(self, letter: Letter, channel: int) -> None:
        """Write into another rank's box on the current stream, and tell it."""
        self.at(letter.rank, letter.offset, letter.tensor.shape, letter.tensor.dtype).copy_(
            letter.tensor, non_blocking=True
        )
        letter.tensor.record_stream(torch.cuda.current_stream(self.buffer.device))
        self.handle.put_signal(letter.rank, channel)


class Messenger:
    """The boxes of one rank.

    Args:
        ranks: this process among those of the default group.
        device: where the boxes are.
        one_host: whether the ranks' GPUs write into each other's memory; None asks them.
    """

    def __init__(self, ranks: Ranks, device: torch.device, *, one_host: bool | None = None):
        self.ranks, self.device = ranks, device
        self._boxes: dict[str, Box] = {}
        self._halves: dict[str, int] = {}
        self.one_host = device.type == "cuda" and _see_each_other(ranks, device) if one_host is None else one_host

    def box(self, name: str, size: int) -> Box:
        """The box called `name` with room for `size` bytes. All ranks must ask for the same."""
        box = self._boxes.get(name)
        if box is None or box.size < size:
            self._boxes[name] = box = Mailbox(size, self.device) if self.one_host else GroupBox(size, self.device)
        return box

    def all(self, one: bool) -> bool:
        """Whether it is so on every rank; the same answer on each. All must ask."""
        return bool(self.ranks.gather(torch.tensor(one, device=self.device)).all())

    def other_half(self, name: str) -> int:
        """0 and 1 in turn: which half of a box comes next, where its halves are used in turn."""
        self._halves[name] = 1 - self._halves.get(name, 0)
        return self._halves[name]


def _see_each_other(ranks: Ranks, device: torch.device) -> bool:
    """Whether all ranks' GPUs can write into each other's memory; the same answer on every rank."""
    addresses: list[Any] = [None] * ranks.size
    with torch.cuda.device(device):
        dist.all_gather_object(addresses, (socket.gethostname(), device.index))
    one_host = len({host for host, _ in addresses}) == 1
    others = [index for _, index in addresses if index != device.index]
    works = one_host and all(torch.cuda.can_device_access_peer(device, other) for other in others)
    if works:
        try:
            Mailbox(1024, device)
        except RuntimeError as error:
            _log.warning("symmetric memory does not work here, using NCCL: %s", error)
            works = False
    return bool(ranks.gather(torch.tensor(works, device=device)).all())
