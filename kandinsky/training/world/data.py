"""Training data of the synthetic world: rendered clips of the training scenes, as cached latents.

    python -m kandinsky.training.world.data OUT --weights W --clips 20000

Clips of 1, 2 and 3 seconds and single frames; latents are the mean of the VAE's posterior. OUT appears when it is
complete. Legend: see `vae`.
"""

import argparse
import random
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.atomic import replacing
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512
from kandinsky.loading.components import load_text_encoder, load_vae
from kandinsky.loading.devices import default_dtype, device_argument
from kandinsky.training.data import Encoded, write_shards
from kandinsky.training.world.grammar import caption, split
from kandinsky.training.world.render import render
from kandinsky.training.world.vae import to_pixels
from kandinsky.training.world.wording import reword
from kandinsky.user_files.paths import path_argument

LENGTHS: Mapping[int, int] = MappingProxyType({1: 1, 9: 3, 17: 4, 25: 3})
"""Numbers of frames, and how often each is drawn."""
BATCH = 64
SMALL_WEIGHT = 2
"""How often a small object is drawn for a large one: its shape is the harder to learn."""
REWORDED = 0.15
"""Share of clips whose caption is another wording; the others' tells everything."""


@torch.inference_mode()
def encode_clips(vae: Any, clips: Tensor) -> Tensor:
    """Scaled latents `[B, T, H, W, C]` of uint8 clips of one length, by diffusers' autoencoder."""
    pixels = to_pixels(clips).to(vae.dtype)
    return vae.encode(pixels).latent_dist.mode().permute(0, 2, 3, 4, 1) * vae.config.scaling_factor


def encoded_clips(
    weights: Path,
    device: torch.device,
    *,
    clips: int,
    seed: int,
    batch: int = BATCH,
    lengths: Mapping[int, int] = LENGTHS,
) -> Iterator[Encoded]:
    """Clips of random training scenes, in an order that the seed gives.

    Args:
        batch: how many clips of one length are drawn and encoded at once.
        lengths: numbers of frames, and how often each is drawn.
    """
    place = {"device": device, "dtype": default_dtype(device)}
    vae = load_vae(place_of(weights, "vae"), **place).autoencoder
    tokens = (read_model_set(weights) or FLASH_512).text_tokens
    folders = place_of(weights, "text_encoder"), place_of(weights, "tokenizer")
    t5 = load_text_encoder(*folders, text_tokens=tokens, **place)
    choice, generator, texts = random.Random(seed), torch.Generator().manual_seed(seed), {}
    scenes = split()[0]
    often = [SMALL_WEIGHT if scene.size == "small" else 1 for scene in scenes]
    with tqdm(total=clips, desc="clips") as bar:
        while bar.n < clips:
            some = choice.choices(scenes, often, k=min(batch, clips - bar.n))
            frames = choice.choices(tuple(lengths), tuple(lengths.values()))[0]
            latents = encode_clips(vae, render(some, frames, generator=generator, device=device)).cpu()
            for scene, made in zip(some, latents, strict=True):
                text = reword(scene, choice) if choice.random() < REWORDED else caption(scene)
                yield Encoded(str(bar.n), text, made, _embedded(t5, text, texts))
                bar.update()


@torch.inference_mode()
def _embedded(t5: Any, text: str, known: dict[str, Tensor]) -> Tensor:
    if text not in known:
        known[text] = t5(text).cpu()
    return known[text]


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=path_argument)
    parser.add_argument(
        "--weights", type=path_argument, required=True, help="folder with vae, text_encoder and tokenizer"
    )
    parser.add_argument("--clips", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    given = parser.parse_args(arguments)
    device = given.device
    if given.out.exists() and any(given.out.iterdir()):
        parser.error(f"out={str(given.out)!r} has files in it; allowed is a new folder")
    clips = encoded_clips(given.weights, device, clips=given.clips, seed=given.seed)
    with replacing(given.out) as folder:
        count = write_shards(clips, folder)
    print(f"{count} clips in {given.out}")


if __name__ == "__main__":
    main(sys.argv[1:])
