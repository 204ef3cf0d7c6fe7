"""Sequence parallelism of the DiT: each rank holds all weights and some of the tokens (DeepSpeed Ulysses, arXiv
2309.14509).

Before attention each rank sends its tokens' query, key and value to the ranks that own the heads, the other ranks' part
first; after it the outputs come back. The result is one device's bit for bit.

Legend:  tokens: [tokens, model_dim], all of them      local: those of this rank
"""

from dataclasses import dataclass, fields
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from kandinsky.config import DiTConfig
from kandinsky.model.attention import Attention
from kandinsky.model.context import Context, ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.model.layers import SelfAttention, linear_into
from kandinsky.model.layout import Segments, TokenLayout
from kandinsky.model.operations import NormRope
from kandinsky.parallel.boxes import Letter, Messenger
from kandinsky.parallel.ranks import Ranks

if TYPE_CHECKING:
    from kandinsky.model.quantised import Quantised


def parallelise_(dit: DiT, messenger: Messenger) -> None:
    """Replace the attention of each block of a `SequenceParallelDiT`."""
    for block in dit.blocks:
        setattr(block, "self_attention", UlyssesAttention(block.self_attention, messenger))  # noqa: B010


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
        attention: Attention,
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
            return norm_rope(out, self.query_norm, self.key_norm, context.rope, attention.query_scale(self.head_dim))

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
        attended = context.attend(qkv, attend=attention.attend, dilated=dilated)
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
