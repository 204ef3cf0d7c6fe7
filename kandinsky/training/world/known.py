"""How well a tiny model begins from a picture, ends with one, goes on from a clip and changes one (held-out captions).

    python -m kandinsky.training.world.known --weights weights/tiny --device cuda [--prompts 120] [--json FILE]

Every case is made in each of `MANNERS` of putting in what is known (only `video` has nothing to put in). Pictures and
clips are drawn by the world, so that what is kept and which way it moves is known; `judge` measures it. `first` and
`last` are decibels of that frame against the picture, less those of the picture's own way through the VAE. `kept` is
the share of later latent frames that have the picture's colour, shape, size and background, `motion` of clips that move
as the prompt says, `smooth` of clips whose largest step is at most 1.5 times the median step, or a pixel where nothing
is to move, and `nearly smooth` of those that keep to 1.5 times but for a pixel. `tone` is how far the background is
from the given one, of 255. The first rows, drawn clips and text alone, are the ceiling.

Legend: T, H, W latents; F pixel frames; clips uint8 [F, height, width, 3]
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.known.given import Given
from kandinsky.known.latents import known_of
from kandinsky.loading.assemble import load_parts
from kandinsky.loading.settings import settings_of
from kandinsky.sampler import sample
from kandinsky.training.world.evaluate import some_scenes
from kandinsky.training.world.grammar import LANES, Scene, caption
from kandinsky.training.world.judge import judge, object_path, take_apart
from kandinsky.training.world.manners import MANNERS, sample_repeated, soften
from kandinsky.training.world.render import render
from kandinsky.video_shape import VideoShape

LOOKS = ("colour", "shape", "size", "background")
"""What a picture tells of a scene."""
CLIP_SECONDS = 2
EXTENDED_SECONDS = 3
"""Of a piece whose first second is known."""
BEGINNING = 9
"""Frames of that second."""
STRENGTHS = (0.75, 0.5, 0.25)
SEED = 1000
FIRST = 240
"""Captions before it were looked at while a manner was chosen."""


@dataclass(frozen=True)
class Trial:
    """One clip to be made.

    Args:
        asked: the prompt's scene.
        shown: the scene of what is given.
        given: None for text alone.
        clip: drawn of `shown`.
        made: by the model; else it is the drawn clip that goes through the VAE.
    """

    asked: Scene
    shown: Scene
    given: Given | None
    clip: Tensor
    made: bool = True


def trials(case: str, scenes: Sequence[Scene], clips: Sequence[Tensor], longer: Sequence[Tensor]) -> list[Trial]:
    """What a case gives and asks for."""
    if case in PLAIN:
        return [Trial(scene, scene, None, clip, made=case == "text") for scene, clip in zip(scenes, clips, strict=True)]
    if case == "extend":
        return [
            Trial(scene, scene, Given(head=clip[:BEGINNING]), clip) for scene, clip in zip(scenes, longer, strict=True)
        ]
    others = [*scenes[1:], scenes[0]]
    if case.startswith("video"):
        strength = float(case.split()[1])
        return [
            Trial(other, scene, Given(video=clip, strength=strength), clip)
            for scene, other, clip in zip(scenes, others, clips, strict=True)
        ]
    made = []
    for scene, clip in zip(scenes, clips, strict=True):
        head = clip[:1] if case in ("image", "both", "turned") else None
        last = clip[-1] if case in ("last", "both") else None
        made.append(Trial(_turned(scene) if case == "turned" else scene, scene, Given(head=head, last=last), clip))
    return made


PLAIN = ("drawn", "text")
"""Nothing is given: a drawn clip through the VAE, the ceiling, and what the model makes of text alone."""
CASES = (*PLAIN, "image", "turned", "last", "both", "extend", *(f"video {strength}" for strength in STRENGTHS))
"""`turned` is `image` with a prompt that says another motion than the drawn clip's."""


def _turned(scene: Scene) -> Scene:
    motions = {"right": "down", "down": "left", "left": "up", "up": "right", "still": "right"}
    motion = motions[scene.motion]
    return replace(scene, motion=motion, position=scene.position if scene.position in LANES[motion] else "middle")


class Bench:
    """A model set and what it is tried on.

    Args:
        weights: folder of the model set.
        count, first: captions, of those that were held out, and the place of the first among them.
    """

    def __init__(self, weights: Path, device: str, *, count: int, first: int, workers: int):
        self.parts = load_parts(settings_of(device, cache_dir=weights, progress=False, local_files_only=True))
        size = self.parts.model_set.sizes[0]
        self.shapes = {
            seconds: VideoShape.from_request(seconds, *size, model_set=self.parts.model_set)
            for seconds in (CLIP_SECONDS, EXTENDED_SECONDS)
        }
        self.scenes = some_scenes(first + count)[first:]
        self.clips, self.longer = (self._drawn(seconds) for seconds in self.shapes)
        self.workers = workers

    def _drawn(self, seconds: int) -> list[Tensor]:
        shape = self.shapes[seconds]
        generator = torch.Generator().manual_seed(7)
        size = (shape.height, shape.width)
        return list(render(self.scenes, shape.num_frames, size=size, generator=generator, device="cpu"))

    def frames(self, latents: Tensor) -> Tensor:
        """Decoded, on the host."""
        assert self.parts.vae is not None
        return torch.cat([part.cpu() for part in self.parts.vae.decode(latents)])

    def latents(self, trial: Trial, manner: str, *, seed: int, seconds: int) -> Tensor:
        """What the model makes of a trial."""
        parts, shape = self.parts, self.shapes[seconds]
        assert parts.text_encoder is not None
        assert parts.vae is not None
        if not trial.made:
            return parts.vae.encode(trial.clip)
        dit, alphas = parts.dit, parts.schedule.alphas_cumprod
        text = parts.text_encoder(caption(trial.asked)).to(dit.device, dit.dtype)
        context = dit.prepare(text, parts.modulation, dit.layout(shape.latent_grid, len(text)))
        size = (*shape.latent_grid, dit.config.in_visual_dim)
        known = None
        if trial.given is not None:
            known = known_of(trial.given, parts.vae.encode, shape.latent_grid, steps=len(alphas))
            noised, toned = MANNERS.get(manner, ("own", False))
            known = replace(known, noised=noised, toned=toned)

        def velocity(latents: Tensor, index: int) -> Tensor:
            return dit.step(latents.to(dit.dtype), context, index)

        if manner == "repeated" and known is not None:
            return sample_repeated(velocity, known, alphas, seed)
        return sample(
            velocity,
            size,
            parts.schedule,
            generator=torch.Generator().manual_seed(seed),
            device=dit.device,
            on_step=partial(soften, known) if manner == "soft" and known is not None else None,
            known=known,
        )

    def rows(self, case: str, manners: Sequence[str]) -> Iterator[tuple[str, dict[str, float]]]:
        """Means over all captions, manner by manner; threads judge clips while the next ones are made."""
        seconds = EXTENDED_SECONDS if case == "extend" else CLIP_SECONDS
        asked = trials(case, self.scenes, self.clips, self.longer)
        with ThreadPoolExecutor(self.workers) as pool, torch.inference_mode():
            ways = [self._own_way(trial) for trial in asked]
            for manner in manners:
                work = []
                for index, (trial, way) in enumerate(zip(asked, ways, strict=True)):
                    frames = self.frames(self.latents(trial, manner, seed=SEED + index, seconds=seconds))
                    work.append(pool.submit(measure, trial, case, frames, way))
                found = [each.result() for each in work]
                yield manner, {name: sum(each[name] for each in found) / len(found) for name in found[0]}

    def _own_way(self, trial: Trial) -> dict[str, float]:
        """Decibels of given pictures through the VAE alone."""
        given, found = trial.given, {}
        assert self.parts.vae is not None
        if given is not None and given.head is not None and len(given.head) == 1:
            found["first"] = psnr(self.frames(self.parts.vae.encode(given.head))[0], given.head[0])
        if given is not None and given.last is not None:
            still = given.last.expand(BEGINNING, -1, -1, -1)
            found["last"] = psnr(self.frames(self.parts.vae.encode(still))[-1], given.last)
        return found


def measure(trial: Trial, case: str, frames: Tensor, own_way: dict[str, float]) -> dict[str, float]:
    """One clip's figures."""
    known = BEGINNING if case == "extend" else 1
    whole, path = judge(frames), object_path(frames)
    step = (path[1:] - path[:-1]).norm(dim=1)
    pixel = 1 / min(frames.shape[1:3])
    found = {
        "kept": _looks(trial.shown, frames, known),
        "motion": float(whole.motion == trial.asked.motion),
        "smooth": float(step.max() <= (pixel if trial.asked.motion == "still" else 1.5 * step.median())),
        "nearly smooth": float(step.max() <= 1.5 * step.median() + pixel),
    }
    if case.startswith("video"):
        new = judge(frames)
        old = sum(getattr(new, name) == getattr(trial.shown, name) for name in LOOKS) / len(LOOKS)
        asked = sum(getattr(new, name) == getattr(trial.asked, name) for name in LOOKS) / len(LOOKS)
        way = (path - object_path(trial.clip)).norm(dim=1).mean().item()
        return {"new looks": asked, "old looks": old, "new motion": found["motion"], "off the old way": way}
    if case != "text":
        found["tone"] = 255 * (tone_of(frames[known:]) - tone_of(trial.clip[:known])).abs().item()
    if case == "extend":
        seam = (path[known + 3] - path[known - 1]) / 4, (path[known - 1] - path[known - 5]) / 4
        after, before = (each.norm().item() for each in seam)
        found["same speed"] = float(abs(after - before) <= 0.5 * before + pixel)
        found["no jump at seam"] = float(step[known - 1] <= 1.5 * step[: known - 1].median() + pixel)
    for name, place, picture in (("first", 0, trial.clip[0]), ("last", -1, trial.clip[-1])):
        if name in own_way:
            found[name] = psnr(frames[place], picture) - own_way[name]
    return found


def tone_of(frames: Tensor) -> Tensor:
    """Brightness of a clip's background, 0 to 1."""
    return take_apart(frames.movedim(-1, 1).float() / 255).background.mean()


def _looks(scene: Scene, frames: Tensor, known: int) -> float:
    """Share of latent frames after the known ones that look as a scene does."""
    groups = frames[known:].unflatten(0, (-1, 4))
    verdicts = [judge(group) for group in groups]
    return sum(all(getattr(v, name) == getattr(scene, name) for name in LOOKS) for v in verdicts) / len(verdicts)


def psnr(frame: Tensor, other: Tensor) -> float:
    """Decibels between two uint8 pictures."""
    return (10 * torch.log10(255**2 / (frame.double() - other.double()).square().mean().clamp(min=1e-9))).item()


def table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown, a table for each case: decibels and lengths as they are, shares in percent."""
    parts = []
    for case, by_manner in rows.items():
        names = list(next(iter(by_manner.values())))
        parts.append(f"\n| {case} | " + " | ".join(names) + " |\n" + "|---" * (len(names) + 1) + "|")
        for manner, row in by_manner.items():
            plain = ("first", "last", "off the old way", "tone")
            cells = [f"{row[name]:.2f}" if name in plain else f"{row[name]:.1%}" for name in names]
            parts.append(f"| {manner} | " + " | ".join(cells) + " |")
    return "\n".join(parts)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=Path("weights/tiny"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--prompts", type=int, default=120)
    parser.add_argument("--first", type=int, default=FIRST, help="place of the first caption among those held out")
    parser.add_argument("--cases", nargs="+", default=CASES, choices=CASES)
    parser.add_argument("--manners", nargs="+", default=tuple(MANNERS), choices=MANNERS)
    parser.add_argument("--workers", type=int, default=min(12, os.cpu_count() or 1), help="threads that judge")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.device != "cpu":
        torch.set_num_threads(1)  # many clips at once rather than many threads for each
    bench = Bench(given.weights, given.device, count=given.prompts, first=given.first, workers=given.workers)
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for case in given.cases:
        plain = case in PLAIN or case.startswith("video")
        rows[case] = {}
        for manner, row in bench.rows(case, ("-",) if plain else given.manners):
            rows[case][manner] = row
            if given.json:
                given.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(table({case: rows[case]}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
