"""Everything of a pipeline that runs: a frozen value, from `assemble` or put together by hand."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import Shard
from kandinsky.checkpoint.lora import Lora
from kandinsky.config import FLASH_512, FLOAT32_MAX, ModelSet
from kandinsky.memory.block_stream import Home
from kandinsky.model.context import ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.output.record import Origin
from kandinsky.output.unfinished import VaeSource
from kandinsky.parallel.ranks import Ranks
from kandinsky.sampler import Schedule
from kandinsky.text.cache import PromptCache
from kandinsky.text.encoder import TextEncoder
from kandinsky.vae.autoencoder import VideoAutoencoder


@dataclass(frozen=True)
class Adapter:
    """Low-rank weights that a pipeline has, and how much of them is merged: 0 is nothing.

    Raises:
        ValueError: with the scale of the file the weight is too large for float32.
    """

    lora: Lora
    weight: float

    def __post_init__(self) -> None:
        largest = max((abs(layer.scale) for layer in self.lora.layers.values()), default=0.0)
        if not abs(self.weight) * largest <= FLOAT32_MAX:
            file = self.lora.path
            raise ValueError(f"weight of {file}={self.weight}: allowed is {FLOAT32_MAX / largest:.2g} at most")


@dataclass(frozen=True, kw_only=True)
class BaseWeights:
    """What a DiT was before anything was merged into it.

    Args:
        checkpoint: its exact weights.
        shard: which regions of them this process has; None is all.
        quantise: a weight to float8 and scales, where the blocks' Linears are; see `precision.Precision`.
        modulation: its table.
    """

    checkpoint: Checkpoint
    shard: Shard | None
    quantise: Callable[[Tensor], tuple[Tensor, Tensor]] | None
    modulation: ModulationTable


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What one process has.

    Args:
        dit: the transformer, with the attention and the operations that it runs with.
        dit_home: entered around sampling, brings the DiT's weights and takes them away again; None where they stay.
        modulation: of the schedule's timesteps, which are all that are ever asked for.
        schedule: timesteps of the sampler.
        text_encoder: None on ranks that are not their team's first.
        vae: None there too, unless the team decodes together.
        model_set: what the weights were trained for.
        ranks: all processes; the main one gives the request.
        team: those that make a video together: all of `ranks`, or this process alone if they share out the jobs.
        modes: name of the memory mode of each component; none if it was put together by hand.
        origin: how it was loaded, for records; None if it was put together by hand.
        vae_source: how the VAE was loaded, for latents of unfinished videos; None likewise.
        base: where the DiT's weights come from, for merging low-rank ones; None if they cannot be read again.
        adapters: low-rank weights by name, in the order in which they are added.
        progress: show progress bars on the main rank.
    """

    dit: DiT
    dit_home: Home | None = None
    modulation: ModulationTable
    schedule: Schedule
    text_encoder: TextEncoder | PromptCache | None
    vae: VideoAutoencoder | None
    model_set: ModelSet = FLASH_512
    ranks: Ranks = field(default_factory=Ranks)
    team: Ranks = field(default_factory=Ranks)
    modes: Mapping[str, str] = field(default_factory=dict)
    origin: Origin | None = None
    vae_source: VaeSource | None = None
    base: BaseWeights | None = None
    adapters: Mapping[str, Adapter] = field(default_factory=dict)
    progress: bool = True


def modulation_table(dit: DiT, schedule: Schedule) -> ModulationTable:
    """Modulation of the schedule's timesteps, on the DiT's device."""
    with torch.inference_mode():
        return dit.modulation(torch.tensor(schedule.timesteps, device=dit.device)[:, None])


def in_words(parts: Parts) -> str:
    """How these parts run, in one line: what "auto" took is in it."""
    modes = set(parts.modes.values())
    memory = modes.pop() if len(modes) == 1 else ", ".join(f"{mode} for {name}" for name, mode in parts.modes.items())
    return f"attention {parts.dit.attention.name}, kernels {parts.dit.operations.name}, memory {memory or 'unknown'}"


def is_resident(parts: Parts) -> bool:
    """Whether all weights that this process has stay on their devices."""
    text = parts.text_encoder
    vae_stays = parts.vae is None or not parts.vae.staged
    return parts.dit_home is None and (text is None or text.is_resident) and vae_stays
