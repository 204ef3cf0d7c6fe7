"""Training of a small CogVideoX-architecture VAE on clips of the synthetic world.

    python -m kandinsky.training.vae FOLDER --seconds 130

Model, encoding and decoding are diffusers' `AutoencoderKLCogVideoX`, with its chunks of frames: what is trained is
what runs. Loss: L1 of pixels and of their differences to the right and lower neighbour, and a little KL divergence
(arXiv 1312.6114). No adversary and no network in the loss: the world has flat colours. The learning rate falls to 0
over the seconds that are given. Writes FOLDER/vae in bfloat16, with the scaling factor that gives latents a standard
deviation of 1.

Legend: clips: uint8 [B, F, height, width, 3]     pixels: [B, 3, F, height, width] from -1 to 1
"""

import argparse
import json
import math
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.training.world.grammar import split
from kandinsky.training.world.render import render
from kandinsky.vae.autoencoder import load_vae

SIZES: dict[str, Any] = {"block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8}
LENGTHS, LENGTH_WEIGHTS = (1, 9, 17, 25), (1, 3, 4, 2)
PIXELS_A_STEP = 24 * 17 * 128 * 128
KL_WEIGHT = 1e-4
LEARNING_RATE = 2e-3
WARMUP_SECONDS = 3.0


def new_vae(seed: int) -> Any:
    """diffusers' autoencoder of `SIZES`, freshly drawn."""
    from diffusers import AutoencoderKLCogVideoX

    torch.manual_seed(seed)
    count = len(SIZES["block_out_channels"])
    blocks: dict[str, Any] = {
        "down_block_types": ("CogVideoXDownBlock3D",) * count,
        "up_block_types": ("CogVideoXUpBlock3D",) * count,
    }
    return AutoencoderKLCogVideoX(**SIZES, **blocks, latent_channels=16)


def to_pixels(clips: Tensor) -> Tensor:
    """Frames as the VAE reads them."""
    return clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def reconstruction_loss(made: Tensor, pixels: Tensor) -> Tensor:
    """L1 of pixels, and of their differences across and down, which are where edges are."""
    differences = [F.l1_loss(made.diff(dim=axis), pixels.diff(dim=axis)) for axis in (-1, -2)]
    return F.l1_loss(made, pixels) + sum(differences)


def losses_of(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Reconstruction and KL divergence per latent value."""
    posterior = vae.encode(pixels).latent_dist
    made = vae.decode(posterior.sample()).sample.float()
    divergence = 0.5 * (posterior.mean.float().square() + posterior.var.float() - 1 - posterior.logvar.float()).mean()
    return reconstruction_loss(made, pixels), divergence


def rate(passed: float, seconds: float) -> float:
    """Learning rate after `passed` of `seconds`: a short warm-up, then half a cosine to 0."""
    return (
        LEARNING_RATE
        * min(1, passed / WARMUP_SECONDS + 0.02)
        * 0.5
        * (1 + math.cos(math.pi * min(1, passed / seconds)))
    )


def draw_clips(choice: random.Random, generator: torch.Generator, device: torch.device, budget: int) -> Tensor:
    """Clips of one length, as many as make about `budget` pixels."""
    frames = choice.choices(LENGTHS, LENGTH_WEIGHTS)[0]
    count = max(1, min(budget // (frames * 128 * 128), 96))
    return render(choice.choices(split()[0], k=count), frames, generator=generator, device=device)


def train_vae(device: torch.device, *, seconds: float, seed: int = 0, budget: int = PIXELS_A_STEP) -> Any:
    """Train for so many seconds; a line of figures every few of them.

    Args:
        budget: pixels of a step.
    """
    vae = new_vae(seed).to(device).train()
    torch.backends.cudnn.benchmark = True
    choice, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4)
    start, said, step = time.perf_counter(), 0.0, 0
    while (passed := time.perf_counter() - start) < seconds:
        optimiser.param_groups[0]["lr"] = rate(passed, seconds)
        pixels = to_pixels(draw_clips(choice, generator, device, budget))
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            reconstruction, divergence = losses_of(vae, pixels)
        (reconstruction + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        if passed - said >= 5:
            said = passed
            figures = {
                "step": step,
                "seconds": round(passed, 1),
                "loss": reconstruction.item(),
                "kl": divergence.item(),
            }
            print(json.dumps(figures), flush=True)
    return vae.requires_grad_(False).eval()


@torch.no_grad()
def latent_deviation(vae: Any, device: torch.device) -> float:
    """Standard deviation of latents of some clips."""
    choice, generator = random.Random(1), torch.Generator().manual_seed(1)
    clips = render(choice.choices(split()[0], k=16), 9, generator=generator, device=device)
    return vae.encode(to_pixels(clips)).latent_dist.mean.std().item()


def quality(folder: Path, device: torch.device, *, clips: int = 8) -> dict[str, float]:
    """PSNR in dB of held-out scenes for each length, through the runtime that the pipeline decodes with."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    vae, generator = load_vae(folder, device=device, dtype=dtype), torch.Generator().manual_seed(2)
    figures = {}
    for frames in LENGTHS:
        errors = []
        for clip in render(split()[1][:clips], frames, generator=generator, device=device):
            made = torch.cat(list(vae.decode(vae.encode(clip))))
            errors.append((made.float() - clip.float()).square().mean())
        figures[str(frames)] = round(10 * math.log10(255**2 / torch.stack(errors).mean().item()), 2)
    return figures


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seconds", type=float, default=130.0, help="of training")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    device = torch.device(given.device)
    budget = PIXELS_A_STEP if device.type == "cuda" else 128 * 128
    vae = train_vae(device, seconds=given.seconds, seed=given.seed, budget=budget)
    vae.register_to_config(scaling_factor=round(1 / latent_deviation(vae, device), 4))
    vae.to(torch.bfloat16).save_pretrained(given.folder / "vae", safe_serialization=True)
    print(json.dumps({"psnr": quality(given.folder / "vae", device)}))


if __name__ == "__main__":
    main(sys.argv[1:])
