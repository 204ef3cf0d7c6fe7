"""Exponential moving average of a module's weights; each process averages the shards that it has."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class Ema:
    """Averages of `module`'s parameters.

    Args:
        decay: weight of what was there before. Early on it is less, (1 + n) / (10 + n) after n updates, so that the
            first weights are forgotten. 0 averages nothing and needs no memory.
    """

    def __init__(self, module: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self._module = module
        self._averages = {name: _local(value).clone() for name, value in self._own().items()} if decay else {}

    def _own(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self._module.named_parameters()}

    @torch.no_grad()
    def update(self) -> None:
        """After a step of the optimiser."""
        self.updates += 1
        if self._averages:
            decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
            now = [_local(value) for value in self._own().values()]
            torch._foreach_lerp_(list(self._averages.values()), now, 1 - decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """The module has the averages while this is open."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    @torch.no_grad()
    def swap(self) -> None:
        """Weights and averages change places."""
        own = self._own()
        for name, average in self._averages.items():
            local = _local(own[name])
            kept = local.clone()
            local.copy_(average)
            average.copy_(kept)


def _local(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
