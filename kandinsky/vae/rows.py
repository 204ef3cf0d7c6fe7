"""Which rows of the picture a decoder sees: all of them, or a strip whose neighbours are elsewhere.

The decoder asks a `Rows` for what lies outside of its own rows. `Whole` has nothing outside; `parallel.strips` shares
the picture out over several devices. These may then share other work on whole frames, piece by piece.

Legend: a window is [T, H + 2 border, W, C], the input of a convolution.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


class Rows(Protocol):
    """Some rows of latents, and what is asked of the device that decodes them."""

    @property
    def border(self) -> int:
        """Rows above and below that a window has room for."""
        ...

    @property
    def rows(self) -> slice:
        """Of the latents."""
        ...

    def fill_border(self, window: Tensor) -> None:
        """Write the rows above and below into a window that has a border; zeros at the picture's edges."""
        ...

    def gather(self, sums: Tensor) -> Tensor:
        """`[...]` of every part of the picture: `[parts, ...]`."""
        ...

    def pixels(self, local: float) -> float:
        """Pixels of the whole picture, from those of these rows."""
        ...

    def collect(self, frames: Tensor, *, everywhere: bool = False) -> Tensor | None:
        """Frames `[frames, rows, W, 3]` of these rows to whole ones; None where only another device gets them."""
        ...

    def share_of(self, count: int) -> slice:
        """Of `count` pieces of work, those that are this device's."""
        ...

    def join(self, pieces: Tensor, count: int) -> Tensor | None:
        """Each device's `pieces` to all `count` of them, `[count, ...]`; None where another device gets them."""
        ...


@dataclass(frozen=True)
class Whole:
    """All rows on this device: convolutions pad with zeros themselves."""

    border = 0
    rows = slice(None)

    def fill_border(self, window: Tensor) -> None:
        """Nothing to fill."""

    def gather(self, sums: Tensor) -> Tensor:
        """`[...]` to `[1, ...]`."""
        return sums[None]

    def pixels(self, local: float) -> float:
        """The same."""
        return local

    def collect(self, frames: Tensor, *, everywhere: bool = False) -> Tensor:  # noqa: ARG002
        """The same."""
        return frames

    def share_of(self, count: int) -> slice:
        """All."""
        return slice(0, count)

    def join(self, pieces: Tensor, count: int) -> Tensor:  # noqa: ARG002
        """The same."""
        return pieces


WHOLE = Whole()
RowsOf = Callable[[int], Rows | None]
"""(number of latent rows) -> those that are decoded here; None if others decode them all."""


def all_rows(_latent_rows: int) -> Rows:
    """For one device: everything."""
    return WHOLE
