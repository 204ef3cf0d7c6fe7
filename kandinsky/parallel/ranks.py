"""Processes that work together, one for each device: who they are, and what they share between steps.

`boxes` has what they send each other within a step.

Without a process group there is one rank, the main one, and every method is the identity. Under torchrun (or
`torch.distributed.launch`) `open_group` makes the group; one that the caller made is used as it is and never closed.
The backend is NCCL for CUDA devices and gloo for the CPU.
"""

import atexit
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kandinsky.parallel.watchdog import Watchdog

T = TypeVar("T")
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def local_rank() -> int:
    """This process's number on its machine; 0 without a launcher."""
    return int(os.environ.get("LOCAL_RANK", "0"))


@dataclass(frozen=True)
class Ranks:
    """This process among those of the default process group."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Ranks of the default process group if one is initialised, else one rank."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def bounds(self, total: int) -> list[int]:
        """Where each rank's share of `total` things begins, and at the end `total`."""
        return [index * total // self.size for index in range(self.size + 1)]

    def share(self, value: T) -> T:
        """The main rank's `value` on every rank; for small Python objects."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def share_made(self, make: Callable[[], T]) -> T:
        """What the main rank makes, on every rank; if that is refused, every rank raises its ValueError."""
        if self.size == 1:
            return make()
        made, refusal = None, None
        if self.is_main:
            try:
                made = make()
            except ValueError as error:
                refusal = str(error)
        made, refusal = self.share((made, refusal))
        if refusal is not None:
            raise ValueError(refusal)
        assert made is not None
        return made

    def share_tensor(
        self, tensor: Tensor | None, shape: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """The main rank's tensor on every rank's `device`; other ranks pass None."""
        if tensor is None:
            tensor = torch.empty(shape, device=device, dtype=dtype)
        tensor = tensor.to(device, dtype).contiguous()
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """`tensor` of every rank, all of one shape, stacked: `[size, ...]`."""
        if self.size == 1:
            return tensor[None]
        whole = tensor.new_empty(self.size, *tensor.shape)
        dist.all_gather(list(whole.unbind()), tensor.contiguous())
        return whole


def launched_rank() -> int:
    """This process's number among all that a launcher started; 0 without one."""
    return int(os.environ.get("RANK", "0"))


def launched() -> bool:
    """Whether a launcher started this process as one of several."""
    return all(name in os.environ for name in LAUNCHER_VARIABLES) and int(os.environ["WORLD_SIZE"]) > 1


def open_group(device: torch.device) -> Ranks:
    """The ranks of this process: of the caller's group, of the launcher's, or one alone.

    A group that is opened here is watched (see `watchdog`), and closed when the process ends.
    """
    if dist.is_available() and not dist.is_initialized() and launched():
        if device.type == "cuda":
            torch.cuda.set_device(device)
            dist.init_process_group("nccl", device_id=device)
        else:
            dist.init_process_group("gloo")
        ranks = Ranks.current()
        watchdog = Watchdog.start(ranks.rank, ranks.size)
        atexit.register(_close, watchdog)
    return Ranks.current()


def _close(watchdog: Watchdog) -> None:
    """Wait for the others, then end the group; after a failure only stop watching."""
    if watchdog.finish() and dist.is_initialized():
        dist.destroy_process_group()
