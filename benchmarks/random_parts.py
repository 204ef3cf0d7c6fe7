"""A pipeline of random weights, from nothing but a seed: the published sizes, or tiny ones that a CPU runs.

Random weights cost the same as real ones. `full` needs a GPU with 60 GB while it is drawn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch

from kandinsky.checkpoint.random_weights import SCHEDULER, SIZES, random_dit, random_text_encoder, random_vae
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.loading.assemble import configure_
from kandinsky.loading.components import load_tokenizer, vae_conversion
from kandinsky.loading.devices import default_dtype
from kandinsky.loading.parts import Parts, modulation_table
from kandinsky.memory.modes import offload_modulation_
from kandinsky.model.dit import DiT
from kandinsky.model.precision import EXACT, FAST
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks
from kandinsky.parallel.strips import strips_of
from kandinsky.sampler import Schedule
from kandinsky.text.encoder import TextEncoder
from kandinsky.text.t5 import T5Encoder
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

PROMPT = "Several giant wooly mammoths approach treading through a snowy meadow."
TINY_WEIGHTS = Path(__file__).parents[1] / "tests" / "weights"
"""Files of the tiny sizes; their tokenizer serves the full ones too."""
ALONE = Ranks()


@dataclass(frozen=True)
class Workload:
    """What is made where nothing else is said.

    Args:
        model_set: which sizes are allowed.
        seconds: of video.
        width, height: pixels.
    """

    model_set: ModelSet
    seconds: int
    width: int
    height: int

    def shape(self, seconds: int | None = None) -> VideoShape:
        """Of the video, or of one that takes other `seconds`."""
        length = self.seconds if seconds is None else seconds
        return VideoShape.from_request(length, self.width, self.height, model_set=self.model_set)


WORKLOADS: Mapping[str, Workload] = MappingProxyType(
    {
        "full": Workload(FLASH_512, 12, 672, 384),
        "tiny": Workload(replace(FLASH_512, sizes=((48, 32), (32, 32))), 1, 48, 32),
    }
)


def random_parts(size: str, device: torch.device, *, seed: int = 0) -> Parts:
    """Exact, resident, with the kernels and the attention that "auto" chooses."""
    generator, dtype = torch.Generator(device).manual_seed(seed), default_dtype(device)
    text_encoder = random_prompts(size, generator)
    dit = random_dit(SIZES[size].dit, generator, dtype=dtype)
    vae = VideoAutoencoder.from_diffusers(random_vae(SIZES[size].vae, generator, dtype=dtype))
    return assembled(dit, text_encoder, vae, WORKLOADS[size].model_set)


def random_prompts(size: str, generator: torch.Generator) -> TextEncoder:
    """A text encoder on the generator's device."""
    drawn = random_text_encoder(SIZES[size].t5, generator, dtype=default_dtype(generator.device))
    backend = load_tokenizer(TINY_WEIGHTS / "tokenizer")
    return TextEncoder(T5Encoder.from_transformers(drawn), backend, text_tokens=WORKLOADS[size].model_set.text_tokens)


def assembled(
    dit: DiT,
    text_encoder: TextEncoder | None,
    vae: VideoAutoencoder,
    model_set: ModelSet,
    ranks: Ranks = ALONE,
) -> Parts:
    """Parts as loading puts them together; the DiT's modulation layers leave its device."""
    schedule = Schedule.from_config(SCHEDULER)
    modulation = modulation_table(dit, schedule)
    configure_(dit, EXACT.operations("auto", dit.device), attention=None, ranks=ranks)
    offload_modulation_(dit)
    return Parts(
        dit=dit,
        modulation=modulation,
        schedule=schedule,
        text_encoder=text_encoder,
        vae=vae,
        model_set=model_set,
        ranks=ranks,
        team=ranks,
        progress=False,
    )


def fast_vae(vae: VideoAutoencoder, messenger: Messenger | None = None) -> VideoAutoencoder:
    """What "fast" makes of a VAE from `VideoAutoencoder.from_diffusers`; the same where float8 does not run.

    Args:
        messenger: of the ranks that decode in strips.
    """
    if messenger is None:
        return VideoAutoencoder.from_diffusers(vae.autoencoder, convert=vae_conversion(FAST))
    strips = {"rows_of": strips_of(messenger), "convert": vae_conversion(FAST, agree=messenger.all)}
    return VideoAutoencoder.from_diffusers(vae.autoencoder, **strips)


def make_fast_(dit: DiT, ranks: Ranks = ALONE) -> None:
    """What "fast" does to a DiT that is exact; it needs a GPU."""
    for block in dit.blocks:
        FAST.convert_block_(block)
    operations = FAST.operations("auto", dit.device)
    configure_(dit, operations, attention=None, ranks=ranks, preferred=FAST.attention)
