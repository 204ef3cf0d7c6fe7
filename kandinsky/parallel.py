"""Which process does what when several run together.

Without a process group there is one rank, the main one, and every method is the identity.
"""

from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


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

    def share(self, value: T) -> T:
        """The main rank's `value` on every rank; for small Python objects."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

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
