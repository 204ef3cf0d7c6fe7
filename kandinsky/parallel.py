"""Several devices for one video: tensor and sequence parallelism of the DiT, applied from outside.

* tensor: each rank holds some heads and some of the feed-forward's hidden layer (Megatron-LM, arXiv 1909.08053);
  `TENSOR_PLAN` is the table. Two all-reduces a block, each begun piece by piece behind its own matrix product.
* sequence: each rank holds all weights and some of the tokens (DeepSpeed Ulysses, arXiv 2309.14509). Before attention
  each rank sends its tokens' query, key and value to the ranks that own the heads, the other ranks' part first; after
  it the outputs come back.

Both compute the same function; sums are taken in another order. The model knows of neither: Linears and attention are
replaced. Everything else (modulation, norms, embeddings) is on every rank.

Legend:  tokens: [tokens, model_dim], all of them      local: those of this rank
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from types import MappingProxyType
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kandinsky.checkpoint import Shard
from kandinsky.config import DiTConfig
from kandinsky.messages import Letter, Messenger, Sum
from kandinsky.model.context import Context, ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.model.layers import SelfAttention
from kandinsky.model.layout import Segments, TokenLayout
from kandinsky.model.operations import NormRope
from kandinsky.ranks import Ranks
from kandinsky.weight_files import Region

if TYPE_CHECKING:
    from kandinsky.model.kernels import Quantised

MODES = ("tensor", "sequence", "none")
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


def check_mode(mode: str) -> None:
    """Refuse a parallelism that does not exist."""
    if mode not in MODES:
        raise ValueError(f"parallelism={mode!r}: allowed are {', '.join(map(repr, MODES))}")


def check_size(size: int, config: DiTConfig) -> None:
    """Refuse a number of ranks over which the heads cannot be shared.

    Raises:
        ValueError: names the numbers that can.
    """
    heads = config.model_dim // config.head_dim
    if heads % size or config.ff_dim % size:
        allowed = [n for n in range(1, heads + 1) if heads % n == 0 and config.ff_dim % n == 0]
        raise ValueError(f"{size} processes cannot share {heads} heads; allowed: {', '.join(map(str, allowed))}")


def shard_for(mode: str, ranks: Ranks) -> Shard | None:
    """Which regions of the checkpoint's tensors a rank reads; None for all."""
    if mode != "tensor" or ranks.size == 1:
        return None

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


def builder(mode: str, ranks: Ranks) -> Callable[[DiTConfig], DiT]:
    """What makes a rank's DiT from its sizes; it refuses numbers of ranks that cannot share it."""

    def build(config: DiTConfig) -> DiT:
        check_size(ranks.size, config)
        return SequenceParallelDiT(config, ranks) if mode == "sequence" and ranks.size > 1 else DiT(config)

    return build


def parallelise_(dit: DiT, mode: str, messenger: Messenger) -> None:
    """Replace modules of a DiT that `builder` made and whose weights `shard_for` chose."""
    for block in dit.blocks:
        if mode == "sequence":
            setattr(block, "self_attention", UlyssesAttention(block.self_attention, messenger))  # noqa: B010
            continue
        for name, split in TENSOR_PLAN.items():
            if split.axis == 1:
                owner, _, leaf = name.rpartition(".")
                linear = block.get_submodule(name)
                assert isinstance(linear, nn.Linear)
                setattr(block.get_submodule(owner), leaf, SummedLinear(linear, messenger))


def linear_into(linear: nn.Module, x: "Tensor | Quantised", out: Tensor) -> None:
    """`linear(x)`, written to `out` `[rows, columns]`."""
    if not isinstance(linear, nn.Linear) or not isinstance(x, Tensor):  # Float8Linear
        linear(x, out=out)
    elif linear.bias is None:
        torch.mm(x, linear.weight.T, out=out)
    else:
        torch.addmm(linear.bias, x, linear.weight.T, out=out)


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


class UlyssesAttention(nn.Module):
    """`SelfAttention` of a rank that has some of the tokens: attention itself is over all tokens and some heads.

    Its two boxes may be reused by the next block: a rank sends its next queries only when it has everyone's outputs, so
    when everyone has attended; and its next outputs only when it has everyone's next queries, so when all outputs were
    read.
    """

    def __init__(self, attention: SelfAttention, messenger: Messenger):
        super().__init__()
        self.messenger, self.ranks = messenger, messenger.ranks
        self.head_dim = attention.head_dim
        self.heads = attention.output_layer.in_features // self.head_dim // self.ranks.size
        self.query_norm, self.key_norm = attention.query_norm, attention.key_norm
        self.output_layer = attention.output_layer
        # A projection for the heads of each rank: what is sent to it is then one piece of memory.
        parts = [_heads_of(attention.to_query_key_value, rank, self.ranks.size) for rank in range(self.ranks.size)]
        self.to_query_key_value = nn.ModuleList(parts)

    def forward(
        self,
        normed: "Tensor | Quantised",
        context: "LocalContext",
        norm_rope: NormRope,
        *,
        query_scale: float,
        dilated: bool,
    ) -> Tensor:
        """As `SelfAttention.forward`, with the local tokens."""
        rank, size, dtype = self.ranks.rank, self.ranks.size, self.query_norm.weight.dtype
        shape = (context.bounds[-1], 3, self.heads, self.head_dim)
        token = 3 * self.heads * self.head_dim * dtype.itemsize
        box = self.messenger.box("qkv", shape[0] * token)
        qkv, mine = box.view(0, shape, dtype), context.rows(rank)

        def project(owner: int, out: Tensor) -> Tensor:
            linear_into(self.to_query_key_value[owner], normed, out.flatten(1))
            return norm_rope(out, self.query_norm, self.key_norm, context.rope, query_scale)

        waits = []
        for distances in _stages(size):  # each stage travels while the next is projected
            targets = [(rank + distance) % size for distance in distances]
            sources = [(rank - distance) % size for distance in distances]
            sends = [Letter(project(to, torch.empty_like(qkv[mine])), to, mine.start * token) for to in targets]
            waits.append(box.exchange(sends, [(qkv[context.rows(source)], source) for source in sources]))
        own = project(rank, qkv[mine])
        if own.data_ptr() != qkv[mine].data_ptr():  # plain operations do not work in place
            qkv[mine] = own
        for wait in waits:
            wait()
        attended = context.attend(qkv, dilated=dilated)
        return self.output_layer(self._give_back(attended, context).flatten(1))

    def _give_back(self, attended: Tensor, context: "LocalContext") -> Tensor:
        """All tokens of this rank's heads to the local tokens of all heads, `[tokens, heads, head_dim]`."""
        rank, size = self.ranks.rank, self.ranks.size
        parts = [attended[context.rows(other)] for other in range(size)]
        slot = max(part.numel() for part in parts) * attended.element_size()
        box = self.messenger.box("attended", size * slot)
        received = [box.view(other * slot, parts[rank].shape, attended.dtype) for other in range(size)]
        others = [other for other in range(size) if other != rank]
        letters = [Letter(parts[other], other, rank * slot) for other in others]
        box.exchange(letters, [(received[other], other) for other in others])()
        received[rank] = parts[rank]
        return torch.cat(received, dim=1)


def _heads_of(linear: nn.Linear, owner: int, size: int) -> nn.Linear:
    """The rows of a fused QKV projection that make one rank's heads: q, k, v."""

    def rows(x: Tensor) -> nn.Parameter:
        return nn.Parameter(x.unflatten(0, (3, size, -1))[:, owner].flatten(0, 1), requires_grad=False)

    part = nn.Linear(linear.in_features, linear.out_features // size, device="meta")
    part.weight, part.bias = rows(linear.weight), rows(linear.bias)
    return part


def _stages(size: int) -> list[list[int]]:
    """Distances to the other ranks, in one group or two: more groups would only be more, smaller messages."""
    half = size // 2 + 1
    return [stage for stage in (list(range(1, half)), list(range(half, size))) if stage]


@dataclass(frozen=True)
class LocalContext(Context):
    """A rank's part of a context: `rope`, `segments` and `visual_segments` are of the local tokens.

    Args:
        bounds: where each rank's tokens begin, and the number of all tokens.
        visual_counts: visual tokens of each rank.
        whole: of all tokens.
    """

    bounds: list[int]
    visual_counts: list[int]
    whole: Context

    def rows(self, rank: int) -> slice:
        """Those of a rank among all tokens."""
        return slice(self.bounds[rank], self.bounds[rank + 1])

    @classmethod
    def of(cls, whole: Context, ranks: Ranks) -> "LocalContext":
        """This rank's part."""
        bounds = ranks.bounds(whole.layout.tokens)
        lengths = [_overlaps(whole.segments.lengths, start, stop) for start, stop in pairwise(bounds)]
        local, mine = lengths[ranks.rank], slice(bounds[ranks.rank], bounds[ranks.rank + 1])
        shared = {field.name: getattr(whole, field.name) for field in fields(Context)}
        shared |= {
            "rope": whole.rope[mine],
            "segments": Segments(local, whole.segments.index[mine].contiguous()),
            "visual_segments": Segments.of(local[::2], whole.rope.device),
        }
        return cls(**shared, bounds=bounds, visual_counts=[sum(part[::2]) for part in lengths], whole=whole)


def _overlaps(lengths: tuple[int, ...], start: int, stop: int) -> tuple[int, ...]:
    """How many rows of start..stop lie in each of consecutive segments."""
    edges = [0, *accumulate(lengths)]
    return tuple(max(min(end, stop) - max(begin, start), 0) for begin, end in pairwise(edges))


class SequenceParallelDiT(DiT):
    """A DiT whose blocks see this rank's tokens. Its latents and its velocity are whole, and the same on every rank."""

    def __init__(self, config: DiTConfig, ranks: Ranks):
        super().__init__(config)
        self.ranks = ranks

    def prepare(self, text: Tensor, modulation: ModulationTable, layout: TokenLayout) -> LocalContext:
        return LocalContext.of(super().prepare(text, modulation, layout), self.ranks)

    def step(self, visual: Tensor, context: Context, index: int) -> Tensor:
        assert isinstance(context, LocalContext)
        tokens = self.embed(visual, context.whole)[context.rows(self.ranks.rank)]
        patches = self.project(self.transform(tokens, context, index), context, index)
        padded = patches.new_zeros(max(context.visual_counts), patches.shape[1])
        padded[: len(patches)] = patches
        everyone = self.ranks.gather(padded)
        parts = zip(everyone, context.visual_counts, strict=True)
        return self.assemble(torch.cat([part[:count] for part, count in parts]), context.whole)
