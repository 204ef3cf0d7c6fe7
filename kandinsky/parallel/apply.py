"""Several devices for one video, applied from outside: a value for each name that `parallelism` may have.

The model knows of none of them: a row says which DiT is built, which part of its weights a rank reads, and what is
replaced in it afterwards. Everything that is not replaced (modulation, norms, embeddings) is on every rank.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from kandinsky.checkpoint.load import Shard
from kandinsky.config import PARALLELISMS as NAMES
from kandinsky.config import DiTConfig
from kandinsky.model.dit import DiT
from kandinsky.parallel import sequence, tensor
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks


def _read_all(_ranks: Ranks) -> None:
    return None


def _build_whole(config: DiTConfig, _ranks: Ranks) -> DiT:
    return DiT(config)


def _nothing_(_dit: DiT, _messenger: Messenger) -> None:
    """Each process works alone."""


@dataclass(frozen=True, kw_only=True)
class Parallelism:
    """What several processes do together.

    Args:
        name: as the user says it.
        one_video: all make each video together; else each makes videos of its own.
        build: makes a rank's DiT from its sizes.
        shard: which regions of the checkpoint's tensors a rank reads; None for all.
        apply_: replaces modules of a DiT that `build` made and whose weights `shard` chose.
    """

    name: str
    one_video: bool
    build: Callable[[DiTConfig, Ranks], DiT]
    shard: Callable[[Ranks], Shard | None]
    apply_: Callable[[DiT, Messenger], None]

    def team(self, ranks: Ranks) -> Ranks:
        """Of all `ranks`, those that make a video together with this one."""
        return ranks if self.one_video else Ranks()


TENSOR = Parallelism(
    name="tensor", one_video=True, build=_build_whole, shard=tensor.shard_for, apply_=tensor.parallelise_
)
SEQUENCE = Parallelism(
    name="sequence", one_video=True, build=sequence.SequenceParallelDiT, shard=_read_all, apply_=sequence.parallelise_
)
NONE = Parallelism(name="none", one_video=False, build=_build_whole, shard=_read_all, apply_=_nothing_)
KINDS: Mapping[str, Parallelism] = MappingProxyType(dict(zip(NAMES, (TENSOR, SEQUENCE, NONE), strict=True)))


def parallelism_of(name: object) -> Parallelism:
    """The value of a parallelism's name.

    Raises:
        ValueError: there is no such parallelism; the message names those that there are.
    """
    if not isinstance(name, str) or name not in KINDS:
        raise ValueError(f"parallelism={name!r}: allowed are {', '.join(map(repr, KINDS))}")
    return KINDS[name]


def check_size(size: int, config: DiTConfig) -> None:
    """Refuse a number of ranks over which the heads cannot be shared.

    Raises:
        ValueError: names the numbers that can.
    """
    heads = config.model_dim // config.head_dim
    if heads % size or config.ff_dim % size:
        allowed = [n for n in range(1, heads + 1) if heads % n == 0 and config.ff_dim % n == 0]
        raise ValueError(f"{size} processes cannot share {heads} heads; allowed: {', '.join(map(str, allowed))}")
