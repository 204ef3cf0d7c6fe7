"""Everything of a V2A pipeline that runs: a frozen value, from `load` or put together by hand."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from kandinsky.audio.embeddings import EmbeddingCache
from kandinsky.audio.record import SoundOrigin


class EncoderSource(Protocol):
    """The encoder, loaded or not yet."""

    @property
    def device(self) -> torch.device: ...
    @property
    def mark(self) -> str:
        """What tells it from others."""
        ...

    def check(self) -> None:
        """Look whether it may be asked.

        Raises:
            ValueError: it may not.
        """

    def __call__(self, video: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
        """As `encoder.Encoder`."""
        ...


@dataclass(frozen=True, kw_only=True)
class SoundParts:
    """What makes sounds.

    Args:
        unet: of `unet.build_unet`.
        vae: diffusers' AutoencoderKL.
        scheduler: configuration of the PNDMScheduler.
        encoder: of videos and prompts; None where embeddings are always given.
        cache: of embeddings; None keeps none.
        origin: how it was loaded, for records; None if it was put together by hand.
        progress: show a progress bar.
    """

    unet: Any
    vae: Any
    scheduler: Mapping[str, Any]
    encoder: EncoderSource | None = None
    cache: EmbeddingCache | None = None
    origin: SoundOrigin | None = None
    progress: bool = True
