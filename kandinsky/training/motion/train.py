"""Training of the network that makes frames between frames.

    python -m kandinsky.training.motion.train weights.safetensors --videos a.mp4 b.mp4 --seconds 500

Two of three triplets are of the videos, the others are motion made on the spot (see `synthesis`). Weights are an
exponential moving average, written in float16 every 2 minutes and at the end; `--initial` goes on from such a file.
`--held-back` names videos that are not trained on; every video is measured with each second frame left out.
"""

import argparse
import copy
import json
import math
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.interpolate.network import FlowNetwork
from kandinsky.output.read_video import open_video, read_frames
from kandinsky.training.motion.losses import loss
from kandinsky.training.motion.synthesis import Motion, Triplets, noise_textures
from kandinsky.training.motion.triplets import Clips

TEXTURE = 448
"""Pixels of each side of the pictures on layers."""
FRAMES_FOR_TEXTURES = 24
WARM_UP = 200
CLIP = 2.0
EMA = 0.999
SAVE_SECONDS, SAY_STEPS = 120, 200


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command was told; seconds are of training, without the first measurement."""

    videos: dict[str, Tensor]
    held_back: dict[str, Tensor]
    target: Path
    seconds: float
    seed: int
    batch: int
    size: int
    rate: float
    device: torch.device


def read(path: Path) -> Tensor:
    """All frames, uint8 `[n, 3, height, width]`."""
    video = open_video(path)
    return torch.from_numpy(np.concatenate(list(read_frames(video)))).permute(0, 3, 1, 2).contiguous()


def textures_of(videos: list[Tensor], generator: torch.Generator, device: torch.device) -> Tensor:
    """Frames of the videos, squeezed to squares, and noise, `[N, 3, TEXTURE, TEXTURE]`."""
    pictures = [noise_textures(TEXTURE, generator)]
    for video in videos:
        chosen = video[torch.linspace(0, len(video) - 1, FRAMES_FOR_TEXTURES).long()].to(device).float() / 255
        pictures.append(F.interpolate(chosen, (TEXTURE, TEXTURE), mode="bilinear", antialias=True))
    return torch.cat(pictures)


@torch.no_grad()
def left_out(network: FlowNetwork, video: Tensor) -> float:
    """Mean PSNR, dB, of every second frame made again from its neighbours; `video` uint8 `[n, 3, H, W]`."""
    found = []
    for start in range(0, len(video) - 2, 2):
        first, wanted, second = (video[start + i][None].float() / 255 for i in range(3))
        height, width = first.shape[2] // 32 * 32, first.shape[3] // 32 * 32
        first, wanted, second = (x[:, :, :height, :width] for x in (first, wanted, second))
        half = torch.full((1,), 0.5, device=video.device)
        with torch.autocast(video.device.type, torch.bfloat16, enabled=video.is_cuda):
            made = network(first, second, half).frame
        error = ((made.float().clamp(0, 1) * 255).round() / 255 - wanted).square().mean()
        found.append(-10 * math.log10(max(float(error), 1e-9)))
    return sum(found) / len(found)


def save(network: FlowNetwork, target: Path) -> None:
    """The weights in float16."""
    weights = {name: value.half().contiguous().cpu() for name, value in network.state_dict().items()}
    with replacing(target) as path:
        save_file(weights, path)


def draw(clips: Clips, motion: Motion, batch: int) -> Triplets:
    """Two of three of videos, the others made."""
    made = batch // 3
    parts = (clips.draw(batch - made), motion.draw(made))
    return Triplets(
        *(torch.cat([getattr(part, name) for part in parts]) for name in ("first", "middle", "second", "t"))
    )


def train(settings: Settings, network: FlowNetwork) -> FlowNetwork:
    """Train for `seconds`; returns the averaged weights, which are saved."""
    device = settings.device
    torch.manual_seed(settings.seed)
    generator = torch.Generator(device).manual_seed(settings.seed)
    videos = [video.to(device) for video in settings.videos.values()]
    textures = textures_of(videos, generator, device)
    clips = Clips(videos, torch.Generator().manual_seed(settings.seed), size=settings.size)
    motion = Motion(textures, generator, size=settings.size)
    network = network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # it is missing in the stubs
    average = copy.deepcopy(network).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        network.parameters(), lr=settings.rate, weight_decay=1e-4, fused=device.type == "cuda"
    )
    start, saved, step = time.monotonic(), 0.0, 0
    while (elapsed := time.monotonic() - start) < settings.seconds or step == 0:
        done = elapsed / settings.seconds if settings.seconds > 0 else 0.0
        fall = 0.5 * (1 + math.cos(math.pi * done))
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * fall)
        with torch.no_grad():
            triplets = draw(clips, motion, settings.batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            between = network(triplets.first, triplets.second, triplets.t)
        value, decibels = loss(between, triplets)
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
        optimiser.step()
        step += 1
        decay = min(EMA, step / (step + 20))
        torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 1 - decay)
        if step % SAY_STEPS == 0:
            print(f"{elapsed:6.0f} s step {step} loss {value.item():.4f} {decibels.item():.2f} dB", flush=True)
        if elapsed - saved > SAVE_SECONDS:
            saved = elapsed
            save(average, settings.target)
            print(json.dumps({"step": step, "left_out": measured(settings, average)}), flush=True)
    save(average, settings.target)
    print(json.dumps({"step": step, "left_out": measured(settings, average)}), flush=True)
    return average


def measured(settings: Settings, network: FlowNetwork) -> dict[str, float]:
    """`left_out` of each video."""
    everything = {**settings.videos, **settings.held_back}
    return {name: round(left_out(network, video.to(settings.device)), 3) for name, video in everything.items()}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, help="file for the weights, .safetensors")
    parser.add_argument("--videos", type=Path, nargs="+", required=True)
    parser.add_argument("--held-back", type=Path, nargs="*", default=[])
    parser.add_argument("--initial", type=Path)
    parser.add_argument("--seconds", type=float, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--batch", type=int, default=24)
    parser.add_argument("--size", type=int, default=256, help="pixels of each side of a triplet, a multiple of 32")
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--device", type=torch.device, default="cuda")
    given = vars(parser.parse_args(arguments))
    initial = given.pop("initial")
    for name in ("videos", "held_back"):
        given[name] = {path.stem: read(path) for path in given[name]}
    torch.manual_seed(given["seed"])
    network = FlowNetwork()
    if initial is not None:
        network.load_state_dict({name: value.float() for name, value in load_file(initial).items()})
    torch.backends.cudnn.benchmark = True
    train(Settings(**given), network)


if __name__ == "__main__":
    main(sys.argv[1:])
