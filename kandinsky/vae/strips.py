"""One picture on several devices: each decodes a strip of its rows.

A 3x3 convolution needs one row above and one below: neighbours exchange them before each convolution. GroupNorm's sums
are added up over the strips. So the result is that of one device, up to the order of those sums, and each device has
its part of the activations.

Legend: a window is [T, H + 2 border, W, C], the input of a convolution.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor

Addressed = tuple[Tensor, int]
"""A tensor, and the rank that it goes to or comes from."""


class Peers(Protocol):
    """What the decoder asks of the processes that decode together (`ranks.Ranks`)."""

    @property
    def rank(self) -> int: ...

    @property
    def size(self) -> int: ...

    def bounds(self, total: int) -> list[int]:
        """Where each one's share of `total` begins, and `total`."""
        ...

    def gather(self, tensor: Tensor) -> Tensor:
        """Everyone's tensor, `[size, ...]`."""
        ...

    def exchange(self, sends: Sequence[Addressed], receives: Sequence[Addressed]) -> Callable[[], None]:
        """Begin to send and receive; returns what to call before the tensors are used."""
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
        """Pixels of the picture, from those of this strip."""
        return local


WHOLE = Whole()


@dataclass(frozen=True)
class Strip:
    """Latent rows `bounds[rank]` to `bounds[rank + 1]`."""

    peers: Peers
    bounds: tuple[int, ...]
    border = 1

    @classmethod
    def of(cls, peers: Peers, latent_rows: int) -> "Strip":
        """This process's strip."""
        return cls(peers, tuple(peers.bounds(latent_rows)))

    @property
    def rows(self) -> slice:
        """Latent rows of this strip."""
        return slice(self.bounds[self.peers.rank], self.bounds[self.peers.rank + 1])

    def fill_border(self, window: Tensor) -> None:
        """The first and last row of `window` from the neighbours; zeros at the picture's edges."""
        rank, last = self.peers.rank, self.peers.size - 1
        sends, receives, targets = [], [], []
        for neighbour, own, border in ((rank - 1, 1, 0), (rank + 1, -2, -1)):
            if 0 <= neighbour <= last:
                row = window[:, own].contiguous()
                received = torch.empty_like(row)
                sends.append((row, neighbour))
                receives.append((received, neighbour))
                targets.append((border, received))
            else:
                window[:, border] = 0
        self.peers.exchange(sends, receives)()
        for border, received in targets:
            window[:, border] = received

    def gather(self, sums: Tensor) -> Tensor:
        """`[...]` of every strip: `[strips, ...]`."""
        return self.peers.gather(sums)

    def pixels(self, local: float) -> float:
        """Pixels of the picture, from those of this strip."""
        return local / (self.rows.stop - self.rows.start) * self.bounds[-1]


def collect(frames: Tensor, strip: Strip) -> Tensor | None:
    """Strips `[frames, rows, W, 3]` to whole frames `[frames, H, W, 3]` on the first process; None on the others."""
    peers = strip.peers
    if peers.rank > 0:
        peers.exchange([(frames.contiguous(), 0)], [])()
        return None
    scale = frames.shape[1] // (strip.rows.stop - strip.rows.start)
    parts = [frames]
    for start, stop in list(pairwise(strip.bounds))[1:]:
        parts.append(frames.new_empty(frames.shape[0], (stop - start) * scale, *frames.shape[2:]))
    peers.exchange([], [(part, rank) for rank, part in enumerate(parts) if rank > 0])()
    return torch.cat(parts, dim=1)
