"""How well a DiT of the synthetic world does what prompts say, measured on captions that were held out from training.

    python -m kandinsky.training.world.evaluate --weights W --teacher T.safetensors [--student S.safetensors] [--json F]

Rows: the teacher with 50 steps of DDIM, the teacher with the student's 4 steps, the student with 4 steps, and clips
that were rendered (and went through the VAE), as the ceiling. Columns: share of clips whose attribute is what the
prompt says, by a judge that is no network; sharpness; Frechet distance to rendered clips on features of a random
network.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.atomic import write_text
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import place_of
from kandinsky.loading.components import load_dit, load_text_encoder, load_vae
from kandinsky.loading.devices import default_dtype, device_argument
from kandinsky.sampler import draw_noise
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import ddim, sample_from
from kandinsky.training.world.grammar import Scene, caption, split
from kandinsky.training.world.judge import agreement, judge
from kandinsky.training.world.metrics import frechet_distance, random_features, sharpness
from kandinsky.training.world.render import render
from kandinsky.user_files.paths import path_argument
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.video_shape import VideoShape

Make = Callable[[Tensor, torch.Generator], Tensor]
"""(text [clips, text_tokens, in_text_dim], generator on the CPU) -> scaled latents [clips, T, H, W, C]."""
MANY_STEPS = 50
BATCH = 64


def some_scenes(count: int) -> list[Scene]:
    """Of the scenes that were held out from training, so many, in a fixed random order."""
    held_out = split()[1]
    picked = torch.randperm(len(held_out), generator=torch.Generator().manual_seed(0))[:count]
    return [held_out[index] for index in picked.tolist()]


def accuracy(scenes: Sequence[Scene], videos: Sequence[Tensor], *, new_textures: bool = False) -> dict[str, float]:
    """Share of clips that agree with their scene, for each attribute, and `all` of them at once.

    Args:
        scenes: what was asked for.
        videos: a clip each, uint8 `[frames, height, width, 3]`.
        new_textures: whether backgrounds may be striped; see `judge`.
    """
    found = [
        agreement(scene, judge(video, new_textures=new_textures)) for scene, video in zip(scenes, videos, strict=True)
    ]
    shares = {name: sum(each[name] for each in found) / len(found) for name in found[0]}
    return shares | {"all": sum(all(each.values()) for each in found) / len(found)}


def score(scenes: Sequence[Scene], videos: list[Tensor], reference: list[Tensor]) -> dict[str, float]:
    """A row of figures."""
    distance = frechet_distance(random_features(torch.stack(videos)), random_features(torch.stack(reference)))
    sharp = sharpness(torch.stack(videos)).mean().item()
    return accuracy(scenes, videos) | {"sharpness": sharp, "frechet": float(distance)}


def decode(vae: VideoAutoencoder, latents: Tensor) -> list[Tensor]:
    """Clips one by one, as the pipeline decodes them, on the host."""
    return [torch.cat([part.cpu() for part in vae.decode(clip)]) for clip in latents]


class Evaluation:
    """Scenes and the models around the DiT.

    Args:
        weights: folder of the model set.
        scenes: of which clips are made.
        seconds: of each clip.

    Raises:
        ValueError: the folder declares no model set.
    """

    def __init__(self, weights: Path, device: torch.device, *, scenes: Sequence[Scene], seconds: int):
        model_set = read_model_set(weights)
        if model_set is None:
            raise ValueError(
                f"weights={str(weights)!r}: has no model_set.json; allowed is the synthetic world's folder"
            )
        width, height = model_set.sizes[0]
        self.weights, self.device = weights, device
        self.shape = VideoShape.from_request(seconds, width, height, model_set=model_set)
        self.scenes = scenes
        place = {"device": device, "dtype": default_dtype(device)}
        self.vae = load_vae(place_of(weights, "vae"), **place)
        folders = place_of(weights, "text_encoder"), place_of(weights, "tokenizer")
        t5 = load_text_encoder(*folders, text_tokens=model_set.text_tokens, **place)
        with torch.inference_mode():
            self.text = torch.stack([t5(caption(scene)) for scene in self.scenes])

    def rendered(self, *, seed: int) -> list[Tensor]:
        """Clips of the scenes as the world draws them."""
        size = (self.shape.height, self.shape.width)
        generator = torch.Generator().manual_seed(seed)
        clips = render(self.scenes, self.shape.num_frames, size=size, generator=generator, device=torch.device("cpu"))
        return list(clips)

    @torch.inference_mode()
    def made(self, make: Make) -> list[Tensor]:
        """Clips of the scenes by a DiT, from the same noise each time."""
        generator = torch.Generator().manual_seed(0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return [
                video for text in self.text.float().split(BATCH) for video in decode(self.vae, make(text, generator))
            ]

    def noise(self, clips: int, steps: int, generator: torch.Generator) -> Tensor:
        """`[steps, clips, T, H, W, C]`."""
        drawn = draw_noise((steps, clips, *self.shape.latent_grid, 16), generator)
        return drawn.float().to(self.device)

    @torch.inference_mode()
    def through_vae(self, videos: list[Tensor]) -> list[Tensor]:
        """Encoded and decoded: the best that any DiT could do."""
        return [decode(self.vae, self.vae.encode(video.to(self.device))[None])[0] for video in videos]


def makers(evaluation: Evaluation, teacher: Path, student: Path | None) -> dict[str, Make]:
    """The rows that need a DiT."""
    scheduler = place_of(evaluation.weights, "scheduler")
    few, many = (Levels(scheduler, num_steps=n).to(evaluation.device) for n in (4, MANY_STEPS))

    def load(path: Path):
        return load_dit(open_checkpoint(path), device=evaluation.device, dtype=torch.float32)

    def four(path: Path) -> Make:
        dit = load(path)
        return lambda text, generator: sample_from(dit, few, evaluation.noise(len(text), 4, generator), text)

    whole = load(teacher)
    rows: dict[str, Make] = {
        f"teacher, {MANY_STEPS} steps": lambda text, generator: ddim(
            whole, many, evaluation.noise(len(text), 1, generator)[0], text
        ),
        "teacher, 4 steps": four(teacher),
    }
    return rows if student is None else rows | {"student, 4 steps": four(student)}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: shares in percent."""
    names = list(next(iter(rows.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for title, row in rows.items():
        cells = [f"{row[n]:.3g}" if n in ("sharpness", "frechet") else f"{row[n]:.1%}" for n in names]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=path_argument, required=True, help="folder of the model set")
    parser.add_argument("--teacher", type=path_argument, required=True)
    parser.add_argument("--student", type=path_argument)
    parser.add_argument("--prompts", type=int, default=240)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--device", type=device_argument, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=path_argument)
    given = parser.parse_args(arguments)
    evaluation = Evaluation(given.weights, given.device, scenes=some_scenes(given.prompts), seconds=given.seconds)
    reference = evaluation.rendered(seed=1)
    rows = {
        "rendered, through the VAE": score(
            evaluation.scenes, evaluation.through_vae(evaluation.rendered(seed=2)), reference
        )
    }
    for title, make in makers(evaluation, given.teacher, given.student).items():
        rows[title] = score(evaluation.scenes, evaluation.made(make), reference)
    print(table(rows))
    if given.json:
        write_text(given.json, json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
