"""Tensor parallelism of the DiT: each rank holds some heads and some of the feed-forward's hidden layer (Megatron-LM,
arXiv 1909.08053).

`TENSOR_PLAN` is the table. There are two all-reduces a block, each begun piece by piece behind its own matrix product.
The function is the same; sums are taken in another order.

Legend:  tokens: [tokens, model_dim], all of them
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor, nn

from kandinsky.checkpoint.files import Region
from kandinsky.checkpoint.load import Shard
from kandinsky.model.dit import DiT
from kandinsky.model.layers import linear_into
from kandinsky.parallel.boxes import Letter, Mailbox, Messenger, Wait
from kandinsky.parallel.ranks import Ranks

if TYPE_CHECKING:
    from kandinsky.model.quantised import Quantised

PIECE_ROWS = 6000
"""Fewest rows that a piece of an overlapped all-reduce has."""


@dataclass(frozen=True)
class Split:
    """How a Linear's weight `[out, in]` is cut: along `axis`, each of `parts` stacked matrices by itself."""

    axis: int
    parts: int = 1


TENSOR_PLAN: Mapping[str, Split] = MappingProxyType(
    {
        "self_attention.to_query_key_value": Split(axis=0, parts=3),
        "self_attention.output_layer": Split(axis=1),
        "feed_forward.in_layer": Split(axis=0),
        "feed_forward.out_layer": Split(axis=1),
    }
)
"""The Linears of a transformer block that are cut; what is cut along its input is summed over the ranks."""


def shard_for(ranks: Ranks) -> Shard:
    """Which regions of the checkpoint's tensors a rank reads."""

    def regions(name: str, shape: tuple[int, ...]) -> list[Region] | None:
        module, _, leaf = name.rpartition(".")
        split = next((split for suffix, split in TENSOR_PLAN.items() if module.endswith(suffix)), None)
        if split is None or (split.axis == 1 and leaf == "bias"):
            return None
        part = shape[split.axis] // split.parts
        start, stop = (part // ranks.size * index for index in (ranks.rank, ranks.rank + 1))
        before = (slice(None),) * split.axis
        return [(*before, slice(part * index + start, part * index + stop)) for index in range(split.parts)]

    return regions


def parallelise_(dit: DiT, messenger: Messenger) -> None:
    """Replace the Linears whose inputs are shared out, of a DiT whose weights `shard_for` chose."""
    for block in dit.blocks:
        for name, split in TENSOR_PLAN.items():
            if split.axis == 1:
                owner, _, leaf = name.rpartition(".")
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(block.get_submodule(owner), leaf, SummedLinear(linear, messenger))


class SummedLinear(nn.Module):
    """A Linear of which every rank has some inputs, and its sum over the ranks.

    One piece of rows is summed while the next is multiplied. The result is valid until the next such sum, and a block
    reads it before that.
    """

    def __init__(self, linear: nn.Linear, messenger: Messenger):
        super().__init__()
        if not messenger.ranks.is_main:
            linear.register_parameter("bias", None)  # it is added once
        self.linear: nn.Module = linear
        self.messenger = messenger
        self.out_features, self.dtype = linear.out_features, linear.weight.dtype

    def forward(self, x: "Tensor | Quantised") -> Tensor:
        """`[rows, this rank's inputs]` to `[rows, out]`, the same on every rank."""
        rows = len(x)
        total = Sum(self.messenger, (rows, self.out_features), self.dtype)
        pieces = max(rows // PIECE_ROWS, 1)
        for start, stop in pairwise(index * rows // pieces for index in range(pieces + 1)):
            linear_into(self.linear, x[start:stop], total.out[start:stop])
            total.begin(start, stop)
        return total.finish()


class Sum:
    """A sum over ranks, `[rows, columns]`, begun piece by piece while later pieces are still being computed.

    Every rank writes its part to `out` and calls `begin` for each piece of rows; after `finish`, `out` is the sum.
    `out` is read until the next sum of the same messenger is begun.
    """

    def __init__(self, messenger: Messenger, shape: tuple[int, int], dtype: torch.dtype):
        self.ranks = messenger.ranks
        self.dtype = dtype
        size = shape[0] * shape[1] * dtype.itemsize
        self.box = messenger.box("sum", 2 * size + messenger.ranks.size * shape[1] * dtype.itemsize * 64)
        self.out = self.box.view(0, shape, dtype)
        self.waits: list[Wait] = []
        self.slot = size  # behind `out`: parts of others, as they come

    def begin(self, start: int, stop: int) -> None:
        """Rows start..stop of `out` hold this rank's part."""
        if isinstance(self.box, Mailbox):
            self._begin(self.box, start, stop)
        else:
            work = dist.all_reduce(self.out[start:stop], async_op=True)
            assert work is not None
            self.waits.append(work.wait)

    def finish(self) -> Tensor:
        """The sum."""
        for wait in self.waits:
            wait()
        return self.out

    def _begin(self, box: Mailbox, start: int, stop: int) -> None:
        """Reduce-scatter and all-gather: each rank adds up its share of the rows and gives it to the others.

        A rank's slots are free again when it has sent its sums, without which nobody gets to the next sum.
        """
        rank, others = self.ranks.rank, [other for other in range(self.ranks.size) if other != self.ranks.rank]
        edges = [start + edge for edge in self.ranks.bounds(stop - start)]
        shares = [self.out[begin:end] for begin, end in pairwise(edges)]
        mine, row = shares[rank], self.out.shape[1] * self.dtype.itemsize
        first, channel = self.slot, 2 * len(self.waits)
        largest = max(share.shape[0] for share in shares) * row
        self.slot += largest * self.ranks.size
        sends = [Letter(shares[other], other, first + rank * largest) for other in others]
        slots = [(box.view(first + other * largest, mine.shape, self.dtype), other) for other in others]
        arrived = box.exchange(sends, slots, channel=channel)
        device = box.buffer.device
        computed = torch.cuda.current_stream(device).record_event()
        adder = _adder(device)
        with torch.cuda.stream(adder):
            adder.wait_event(computed)
            arrived()
            for slot, _ in slots:
                mine.add_(slot)
            for other in others:
                box.push(Letter(mine, other, edges[rank] * row), channel + 1)

        def wait() -> None:
            torch.cuda.current_stream(device).wait_stream(adder)
            for other in others:
                box.handle.wait_signal(other, channel + 1)

        self.waits.append(wait)


_adders: dict[int, torch.cuda.Stream] = {}


def _adder(device: torch.device) -> torch.cuda.Stream:
    """A second stream beside the box's: additions must not hold up the next piece's sending."""
    return _adders.setdefault(device.index, torch.cuda.Stream(device, priority=-1))
