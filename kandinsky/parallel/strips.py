"""One picture on several devices: each decodes a strip of its rows.

A 3x3 convolution needs one row above and one below: neighbours exchange them before each convolution. GroupNorm's sums
are added up over the strips. So the result is that of one device, up to the order of those sums, and each device has
its part of the activations. The decoder asks for this through `vae.rows.Rows`.

Legend: a window is [T, H + 2 border, W, C], the input of a convolution.
"""

from itertools import pairwise

import torch
from torch import Tensor

from kandinsky.parallel.boxes import Box, Letter, Messenger
from kandinsky.vae.rows import WHOLE, Rows, RowsOf

SMALLEST_BOX = 2**20
"""Bytes. Boxes grow in powers of two: making one costs more than what it would save."""


class Strip:
    """Latent rows `bounds[rank]` to `bounds[rank + 1]` of `bounds[-1]`.

    Exchanges use the two halves of their box in turn. A rank begins one only when it has its neighbours' messages of
    the one before, so that whoever still reads a half is never two exchanges behind.
    """

    border = 1

    def __init__(self, messenger: Messenger, latent_rows: int):
        self.messenger, ranks = messenger, messenger.ranks
        self.rank, self.size = ranks.rank, ranks.size
        self.bounds = ranks.bounds(latent_rows)
        self.rows = slice(self.bounds[self.rank], self.bounds[self.rank + 1])

    def _places(self, name: str, count: int, bytes_each: int) -> tuple[Box, list[int]]:
        """A box with `count` places in each half, and the offsets of those whose turn it is."""
        size = max(SMALLEST_BOX, 1 << (2 * count * bytes_each - 1).bit_length())
        box = self.messenger.box(name, size)
        first = self.messenger.other_half(name) * count  # across videos too
        place = box.size // (2 * count) // 16 * 16
        return box, [(first + index) * place for index in range(count)]

    def fill_border(self, window: Tensor) -> None:
        """The first and last row of `window` from the neighbours; zeros at the picture's edges."""
        if window.itemsize == 1:
            window = window.view(torch.uint8)  # not every way to send knows float8
        shape = window[:, 0].shape
        box, (above, below) = self._places("border", 2, shape.numel() * window.element_size())
        sends, receives = [], []
        for neighbour, own, border, here, there in (
            (self.rank - 1, 1, 0, above, below),
            (self.rank + 1, -2, -1, below, above),
        ):
            if 0 <= neighbour < self.size:
                sends.append(Letter(window[:, own], neighbour, there))
                receives.append((box.view(here, shape, window.dtype), neighbour, border))
            else:
                window[:, border] = 0
        box.deliver(sends, [(view, neighbour) for view, neighbour, _ in receives])
        for view, _, border in receives:
            window[:, border] = view

    def gather(self, sums: Tensor) -> Tensor:
        """`[...]` of every strip: `[strips, ...]`."""
        box, places = self._places("sums", self.size, sums.numel() * sums.element_size())
        others = [other for other in range(self.size) if other != self.rank]
        received = [box.view(place, sums.shape, sums.dtype) for place in places]
        sends = [Letter(sums, other, places[self.rank]) for other in others]
        box.deliver(sends, [(received[other], other) for other in others])
        received[self.rank] = sums
        return torch.stack(received)

    def pixels(self, local: float) -> float:
        """Pixels of the picture, from those of this strip."""
        return local / (self.rows.stop - self.rows.start) * self.bounds[-1]

    def collect(self, frames: Tensor, *, everywhere: bool = False) -> Tensor | None:
        """Strips `[frames, rows, W, 3]` to whole frames `[frames, H, W, 3]` on the first rank, or on all; else None.

        The next frames cannot be there before these are read: nobody decodes them without all other ranks.
        """
        scale = frames.shape[1] // (self.rows.stop - self.rows.start)
        row = frames[:, 0].numel() * scale
        box = self.messenger.box("frames", max(SMALLEST_BOX, 1 << (row * self.bounds[-1] - 1).bit_length()))
        readers = range(self.size) if everywhere else (0,)
        sends = [Letter(frames, reader, self.bounds[self.rank] * row) for reader in readers if reader != self.rank]
        if self.rank not in readers:
            box.deliver(sends, [])
            return None
        shapes = [(len(frames), (stop - start) * scale, *frames.shape[2:]) for start, stop in pairwise(self.bounds)]
        parts = [box.view(start * row, shape, frames.dtype) for start, shape in zip(self.bounds, shapes, strict=False)]
        box.deliver(sends, [(part, rank) for rank, part in enumerate(parts) if rank != self.rank])
        parts[self.rank] = frames
        return torch.cat(parts, dim=1)

    def share_of(self, count: int) -> slice:
        """Of `count` pieces of work, those that are this rank's."""
        bounds = self.messenger.ranks.bounds(count)
        return slice(bounds[self.rank], bounds[self.rank + 1])

    def join(self, pieces: Tensor, count: int) -> Tensor | None:
        """Each rank's `pieces` `[its share, ...]` to `[count, ...]` on the first rank; None on the others.

        The two halves of a box are used in turn: call this only when what was joined two calls before has been read.
        """
        bounds, one = self.messenger.ranks.bounds(count), pieces.shape[1:].numel() * pieces.element_size()
        if count == 0:
            return pieces if self.rank == 0 else None
        box, (place,) = self._places("pieces", 1, count * one)
        if self.rank > 0:
            box.deliver([Letter(pieces, 0, place + bounds[self.rank] * one)] if len(pieces) else [], [])
            return None
        others = [(rank, start, stop) for rank, (start, stop) in enumerate(pairwise(bounds)) if rank and stop > start]
        parts = [
            (box.view(place + start * one, (stop - start, *pieces.shape[1:]), pieces.dtype), rank)
            for rank, start, stop in others
        ]
        box.deliver([], parts)
        return torch.cat([pieces, *(part for part, _ in parts)])


def strips_of(messenger: Messenger) -> RowsOf:
    """Which rows this rank decodes: a strip, or where there are fewer rows than ranks all on the first one."""

    def rows_of(latent_rows: int) -> Rows | None:
        if messenger.ranks.size <= latent_rows:
            return Strip(messenger, latent_rows)
        return WHOLE if messenger.ranks.is_main else None

    return rows_of
