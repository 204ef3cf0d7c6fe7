"""A step of several ranks with all messages of its blocks left out: what its arithmetic takes alone.

What such a step computes is wrong, and nobody looks at it.
"""

from collections.abc import Callable, Sequence
from typing import Any, cast
from unittest import mock

import torch
from torch import Tensor

from kandinsky.model.dit import DiT
from kandinsky.parallel import tensor
from kandinsky.parallel.boxes import Box, Letter, Messenger, Wait
from kandinsky.parallel.tensor import Sum


class Silence:
    """In the place of a messenger: its boxes are there, and nothing is sent."""

    def __init__(self, messenger: Messenger):
        self.ranks, self.real = messenger.ranks, messenger

    def box(self, name: str, size: int) -> Box:
        """The real box, without its messages."""
        return SilentBox(self.real.box(name, size))


class SilentBox:
    """A box into which nobody writes."""

    def __init__(self, box: Box):
        self.real = box

    @property
    def size(self) -> int:
        return self.real.size

    def view(self, offset: int, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        return self.real.view(offset, shape, dtype)

    def exchange(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]], *, channel: int = 0) -> Wait:  # noqa: ARG002
        return lambda: None

    def deliver(self, sends: Sequence[Letter], receives: Sequence[tuple[Tensor, int]]) -> None:
        pass


class SilentSum(Sum):
    """The sum of one rank."""

    def begin(self, start: int, stop: int) -> None:
        pass


def silenced(run: Callable[[], object], dit: DiT) -> Callable[[], None]:
    """`run`, a step of a parallelised DiT, without messages."""
    holders = [cast("Any", module) for module in dit.modules() if hasattr(module, "messenger")]
    assert holders, "this DiT sends no messages"

    def quiet() -> None:
        real = holders[0].messenger
        for module in holders:
            module.messenger = Silence(real)
        try:
            with mock.patch.object(tensor, "Sum", SilentSum):
                run()
        finally:
            for module in holders:
                module.messenger = real

    return quiet
