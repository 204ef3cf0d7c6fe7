"""Training of the network that makes frames between frames.

    python -m kandinsky.training.motion.train weights.safetensors --videos a.mp4 b.mp4 --seconds 500
    torchrun --nproc-per-node 2 -m kandinsky.training.motion.train ...       # each process draws a batch of its own

Three of four triplets are of the videos, more often of those that move more; the others are motion made on the spot
(see `synthesis`). Weights are an exponential moving average, written in float16 every 2 minutes and at the end;
`--initial` goes on from such a file. `--held-back` names videos that are not trained on; every video is measured with
each second frame left out. `--graphs` replays each step as a CUDA graph.
"""

import argparse
import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kandinsky.atomic import replacing
from kandinsky.interpolate.network import FlowNetwork
from kandinsky.output.read_video import open_video, read_frames
from kandinsky.parallel.ranks import Ranks, open_group
from kandinsky.training.graphs import GraphedStep
from kandinsky.training.motion.losses import loss
from kandinsky.training.motion.synthesis import Motion, Triplets, noise_textures
from kandinsky.training.motion.triplets import Clips

TEXTURE = 448
"""Pixels of each side of the pictures on layers."""
FRAMES_FOR_TEXTURES = 24
WARM_UP = 200
CLIP = 2.0
EMA = 0.999
SAVE_SECONDS, SAY_STEPS, LOOK_STEPS = 120, 200, 20


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
    graphs: bool
    device: torch.device
    ranks: Ranks


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


class Middle(NamedTuple):
    """The frame that is wanted, and its time."""

    frame: Tensor
    t: Tensor


class Losses(NamedTuple):
    """What is minimised, and what is said of it."""

    total: Tensor
    logs: dict[str, Tensor]


class Objective(nn.Module):
    """The loss of a batch, as `graphs.GraphedStep` takes it: convolutions as autocast says, all else in float32."""

    def __init__(self, network: FlowNetwork):
        super().__init__()
        self.network = network

    def forward(self, first: Tensor, second: Tensor, middle: Middle) -> Losses:
        between = self.network(first, second, middle.t)
        with torch.autocast(first.device.type, enabled=False):
            total, decibels = loss(between, Triplets(first, middle.frame, second, middle.t))
        return Losses(total, {"dB": decibels})


class Batches:
    """Draws what is trained on: three of four triplets of videos, the others made."""

    def __init__(self, settings: Settings):
        device, seed = settings.device, settings.seed + 1000 * settings.ranks.rank
        generator = torch.Generator(device).manual_seed(seed)
        videos = [video.to(device) for video in settings.videos.values()]
        self.clips = Clips(videos, torch.Generator().manual_seed(seed), size=settings.size)
        self.motion = Motion(textures_of(videos, generator, device), generator, size=settings.size)
        self.made = settings.batch // 4
        self.real = settings.batch - self.made

    @torch.no_grad()
    def draw(self) -> tuple[Tensor, Tensor, Middle]:
        """First frames, second frames, and those in between."""
        parts = (
            (self.clips.draw(self.real), self.motion.draw(self.made)) if self.made else (self.clips.draw(self.real),)
        )
        first, second, middle, t = (
            torch.cat([getattr(part, name) for part in parts]) for name in ("first", "second", "middle", "t")
        )
        return first, second, Middle(middle, t)


def step_of(objective: Objective, *, graphs: bool, device: torch.device) -> Callable[..., Losses]:
    """A function that puts a batch's gradients into the parameters."""

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")

    if graphs:
        return GraphedStep(objective, autocast)

    def run(first: Tensor, second: Tensor, middle: Middle) -> Losses:
        objective.zero_grad(set_to_none=True)
        with autocast():
            losses = objective(first, second, middle)
        losses.total.backward()
        return losses

    return run


def average_gradients(parameters: list[Tensor], ranks: Ranks) -> None:
    """The mean of all processes' gradients, on each of them."""
    if ranks.size == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    whole = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(whole)
    parts = whole.div_(ranks.size).split([gradient.numel() for gradient in gradients])
    torch._foreach_copy_(gradients, [part.view_as(own) for part, own in zip(parts, gradients, strict=True)])


def train(settings: Settings, network: FlowNetwork) -> FlowNetwork:
    """Train for `seconds`; returns the averaged weights, which the first process saves."""
    device, ranks = settings.device, settings.ranks
    batches = Batches(settings)
    network = network.to(device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # it is missing in the stubs
    average = copy.deepcopy(network).requires_grad_(False)
    weights: list[Tensor] = list(network.parameters())
    optimiser = torch.optim.AdamW(weights, lr=settings.rate, weight_decay=1e-4, fused=device.type == "cuda")
    run = step_of(Objective(network), graphs=settings.graphs, device=device)
    start, elapsed, saved, step = time.monotonic(), 0.0, 0.0, 0
    while elapsed < settings.seconds or step == 0:
        losses = run(*batches.draw())
        average_gradients(weights, ranks)
        torch.nn.utils.clip_grad_norm_(weights, CLIP)
        for group in optimiser.param_groups:
            group["lr"] = rate_at(settings, step, elapsed)
        optimiser.step()
        step += 1
        torch._foreach_lerp_(list(average.parameters()), weights, 1 - min(EMA, step / (step + 20)))
        if step % LOOK_STEPS == 0 or settings.seconds == 0:
            elapsed = ranks.share(time.monotonic() - start)  # all end, and change their rate, at the same step
        if step % SAY_STEPS == 0:
            say(f"{elapsed:6.0f} s step {step} loss {losses.total:.4f} {losses.logs['dB']:.2f} dB", ranks)
        if elapsed - saved > SAVE_SECONDS:
            saved = elapsed
            keep(average, settings, step)
    keep(average, settings, step)
    return average


def rate_at(settings: Settings, step: int, elapsed: float) -> float:
    """It rises for `WARM_UP` steps and falls as a cosine over the seconds."""
    done = elapsed / settings.seconds if settings.seconds > 0 else 0.0
    return settings.rate * min(1, (step + 1) / WARM_UP) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1, done))))


def keep(network: FlowNetwork, settings: Settings, step: int) -> None:
    """Save and measure, in the first process."""
    if settings.ranks.is_main:
        save(network, settings.target)
        say(json.dumps({"step": step, "left_out": measured(settings, network)}), settings.ranks)


def say(text: str, ranks: Ranks) -> None:
    """Print, in the first process."""
    if ranks.is_main:
        print(text, flush=True)


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
    parser.add_argument("--graphs", action="store_true", help="replay each step as a CUDA graph")
    parser.add_argument("--device", type=torch.device, default="cuda")
    given = vars(parser.parse_args(arguments))
    initial = given.pop("initial")
    for name in ("videos", "held_back"):
        given[name] = {path.stem: read(path) for path in given[name]}
    if given["device"].type == "cuda":
        given["device"] = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    given["ranks"] = open_group(given["device"])
    torch.manual_seed(given["seed"])
    network = FlowNetwork()
    if initial is not None:
        network.load_state_dict({name: value.float() for name, value in load_file(initial).items()})
    torch.backends.cudnn.benchmark = True
    train(Settings(**given), network)


if __name__ == "__main__":
    main(sys.argv[1:])
