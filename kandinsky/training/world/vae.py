"""Training of a small CogVideoX-architecture VAE on clips of the synthetic world.

    python -m kandinsky.training.world.vae FOLDER --seconds 130

Model, encoding and decoding are diffusers' `AutoencoderKLCogVideoX`, with its chunks of frames: what is trained is
what runs. Loss: L1 and squared error of pixels, in which object and background weigh the same, L1 of their differences
to the right and lower neighbour, and a little KL divergence (arXiv 1312.6114). Without the weights, training stays
where objects are missing: they are a few percent of the pixels. No adversary and no network in the loss: the world has
flat colours. Most steps are on small pictures, because the model is convolutional; the last ones on the size that is
used. The learning rate falls to 0 over the seconds that are given, so that a run always ends well. With `--initial` a
VAE of an earlier run is trained on, at the size that is used. Writes FOLDER/vae in bfloat16, with the scaling factor
that gives latents a standard deviation of 1.

Legend: clips: uint8 [B, F, height, width, 3]     pixels: [B, 3, F, height, width] from -1 to 1
"""

import argparse
import json
import math
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.checkpoint.replace_set import replacing_set
from kandinsky.loading.components import load_vae
from kandinsky.loading.devices import device_argument
from kandinsky.training.world.grammar import Scene, split
from kandinsky.training.world.render import render
from kandinsky.user_files.paths import path_argument

SIZES: dict[str, Any] = {"block_out_channels": (16, 32, 64, 64), "layers_per_block": 1, "norm_num_groups": 8}
KL_WEIGHT = 1e-4
LEARNING_RATE = 2e-3
WARMUP_STEPS = 100
LEAST_HUE, SMALLEST_SHARE = 0.2, 0.005
"""Of pixels from -1 to 1, channels' difference in an object; the least share of a clip that weighs as much as it."""
SAY_EVERY = 5.0
"""Seconds."""
LENGTHS = (1, 9, 17, 25)
"""Frames of an image and of clips of 1, 2 and 3 seconds: 1, 2 and 3 of the VAE's chunks."""


@dataclass(frozen=True)
class Stage:
    """A part of training: until which share of the time, clips of a step, their side in pixels, their lengths.

    All lengths have the same number of clips: their chunks then have the same few shapes, and cuDNN, which looks for
    the fastest kernel of each, is soon done with it.
    """

    until: float
    clips: int
    side: int
    lengths: tuple[int, ...]


STAGES = (Stage(0.55, 32, 64, (1, 9, 9, 17)), Stage(1.0, 12, 128, (1, 9, 17, 17, 25)))
CPU_STAGES = (Stage(1.0, 2, 64, (1, 9)),)
"""To see that everything works; it makes no good VAE."""


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


def object_mask(pixels: Tensor) -> Tensor:
    """Where a clip has a hue, which backgrounds have not, bool `[B, 1, F, height, width]`."""
    return pixels.amax(1, keepdim=True) - pixels.amin(1, keepdim=True) > LEAST_HUE


def reconstruction_loss(made: Tensor, pixels: Tensor) -> Tensor:
    """Errors of pixels, of their differences across and down, which are where edges are."""
    mask = object_mask(pixels).float()
    weight = 1 + mask / mask.mean(dim=(1, 2, 3, 4), keepdim=True).clamp(min=SMALLEST_SHARE)
    error = made - pixels
    differences = [F.l1_loss(made.diff(dim=axis), pixels.diff(dim=axis)) for axis in (-1, -2)]
    return (weight * (error.abs() + error.square())).mean() / 2 + sum(differences)


def reconstruct(vae: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels after the VAE, in float32, and KL divergence per latent value."""
    posterior = vae.encode(pixels).latent_dist
    mean, variance, logarithm = posterior.mean.float(), posterior.var.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.square() + variance - 1 - logarithm).mean()
    return vae.decode(posterior.sample()).sample.float(), divergence


def rate(step: int, share: float) -> float:
    """Learning rate of a step after a share of the time: a warm-up of some steps, then half a cosine to 0."""
    return LEARNING_RATE * min(1, (step + 1) / WARMUP_STEPS) * 0.5 * (1 + math.cos(math.pi * min(1, share)))


def draw_clips(
    scenes: Sequence[Scene], stage: Stage, *, choice: random.Random, generator: torch.Generator, device: torch.device
) -> Tensor:
    """Clips of random scenes, all of one length."""
    some, frames = choice.choices(scenes, k=stage.clips), choice.choice(stage.lengths)
    return render(some, frames, size=(stage.side, stage.side), generator=generator, device=device)


def trained_vae(folder: Path) -> Any:
    """diffusers' autoencoder of an earlier run, in float32 and with gradients."""
    from diffusers import AutoencoderKLCogVideoX

    return AutoencoderKLCogVideoX.from_pretrained(folder, torch_dtype=torch.float32)


def train_vae(
    vae: Any,
    device: torch.device,
    *,
    seconds: float,
    seed: int = 0,
    stages: Sequence[Stage] = STAGES,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Train for so many seconds of `clock`; a line of figures every few of them."""
    nn.Module.to(vae, device).train()  # diffusers' own `to` warns about modules that this model does not have
    if device.type == "cuda":  # trying all of cuDNN's kernels would take a good part of the time
        torch.backends.cudnn.benchmark, torch.backends.cudnn.benchmark_limit = True, 4
    scenes, choice, generator = split()[0], random.Random(seed), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(vae.parameters(), lr=0.0, betas=(0.9, 0.99), weight_decay=1e-4)
    start, said, step = clock(), 0.0, 0
    while (passed := clock() - start) < seconds:
        optimiser.param_groups[0]["lr"] = rate(step, passed / seconds)
        stage = next(stage for stage in stages if passed < stage.until * seconds)
        clips = draw_clips(scenes, stage, choice=choice, generator=generator, device=device)
        pixels = to_pixels(clips)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            made, divergence = reconstruct(vae, pixels)
        loss = reconstruction_loss(made, pixels)
        (loss + KL_WEIGHT * divergence).backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        step += 1
        if passed - said >= SAY_EVERY:
            said = passed
            errors, mask = (made.detach() - pixels).square(), object_mask(pixels)
            psnr = {
                name: round(10 * math.log10(4 / value.mean().item()), 2)
                for name, value in (("psnr", errors), ("object_psnr", errors[mask.expand_as(errors)]))
            }
            place = {"step": step, "seconds": round(passed, 1), "shape": list(pixels.shape)}
            print(json.dumps(place | {"loss": loss.item(), "kl": divergence.item()} | psnr), flush=True)
    vae.requires_grad_(False).eval()


@torch.no_grad()
def latent_deviation(vae: Any, device: torch.device) -> float:
    """Standard deviation of latents of some clips."""
    choice, generator = random.Random(1), torch.Generator().manual_seed(1)
    clips = render(choice.choices(split()[0], k=16), 9, generator=generator, device=device)
    return vae.encode(to_pixels(clips)).latent_dist.mean.std().item()


def quality(folder: Path, device: torch.device, *, clips: int) -> dict[str, float]:
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
    parser.add_argument("folder", type=path_argument)
    parser.add_argument("--seconds", type=float, default=130.0, help="of training")
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--initial", type=path_argument, metavar="VAE", help="folder of the VAE to begin with")
    given = parser.parse_args(arguments)
    device = given.device
    stages, clips = (STAGES, 16) if device.type == "cuda" else (CPU_STAGES, 1)
    vae = new_vae(given.seed) if given.initial is None else trained_vae(given.initial)
    stages = stages if given.initial is None else stages[-1:]
    train_vae(vae, device, seconds=given.seconds, seed=given.seed, stages=stages)
    vae.register_to_config(scaling_factor=round(1 / latent_deviation(vae, device), 4))
    nn.Module.to(vae, torch.bfloat16)
    with replacing_set(given.folder) as new:
        vae.save_pretrained(new / "vae", safe_serialization=True)
    print(json.dumps({"psnr": quality(given.folder / "vae", device, clips=clips)}))


if __name__ == "__main__":
    main(sys.argv[1:])
