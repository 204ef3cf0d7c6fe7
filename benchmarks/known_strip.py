"""Frames of the embedded tiny model that begin from a picture, change a video and go on from one, as the README shows.

python benchmarks/known_strip.py [--out docs] [--weights W] [--device cpu]

Writes `known_image.png`, `known_video.png` and `known_extend.png`: what is given stands in the first row or column.
"""

import argparse
import tempfile
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.read_clip import read_clip
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.training.world.grammar import parse
from kandinsky.training.world.render import render

ROOT = Path(__file__).parents[1]
FRAMES, GAP, LINE = 6, 4, 14
PICTURES = (
    "a large red circle in the middle moves right on a dark background",
    "a small yellow cross on the right moves down on a gray background",
    "a large blue square on the left moves up on a light background",
)
CHANGED = "a large yellow square in the middle moves right on a dark background"
GONE_ON = "a large red circle in the middle moves left on a dark background"
Row = tuple[str, list[np.ndarray]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    pipe = get_T2V_pipeline(given.device, cache_dir=given.weights, local_files_only=True, progress=False)
    for name, rows in (("image", image_rows(pipe)), ("video", video_rows(pipe)), ("extend", extend_rows(pipe))):
        draw(rows).save(given.out / f"known_{name}.png")


def some(clip: Tensor | np.ndarray, count: int = FRAMES) -> list[np.ndarray]:
    """Frames of a clip, evenly spaced from the first to the last."""
    picked = np.linspace(0, len(clip) - 1, count).round().astype(int)
    return [np.asarray(clip[index]) for index in picked]


def drawn(text: str, frames: int) -> Tensor:
    """A clip of a caption, as the world draws it."""
    return render([parse(text)], frames, generator=torch.Generator().manual_seed(5), device="cpu")[0]


def image_rows(pipe: Kandinsky4T2VPipeline) -> list[Row]:
    """A picture of the world, then six frames that begin with it."""
    rows = []
    for text in PICTURES:
        picture = drawn(text, 17)[0]
        clip = cast("Tensor", pipe(text, time_length=2, seed=1, image=picture, output_type="pt"))
        rows.append((f"picture, then: {text}", [picture.numpy(), *some(clip)]))
    return rows


def video_rows(pipe: Kandinsky4T2VPipeline) -> list[Row]:
    """A video of the model, then the same changed by each strength."""
    clip = cast("Tensor", pipe(PICTURES[0], time_length=2, seed=3, output_type="pt"))
    rows = [(f"given: {PICTURES[0]}", some(clip))]
    for strength in (0.75, 0.5, 0.25):
        made = cast("Tensor", pipe(CHANGED, seed=2, video=clip, strength=strength, output_type="pt"))
        rows.append((f"strength {strength}: {CHANGED}", some(made)))
    return rows


def extend_rows(pipe: Kandinsky4T2VPipeline) -> list[Row]:
    """The last second of a video, and two pieces of two seconds that go on with it."""
    clip = drawn(GONE_ON, 25)[:9]
    with tempfile.TemporaryDirectory() as folder:
        result = pipe.extend(clip, GONE_ON, Path(folder) / "v.mp4", seconds=2, seed=1)
        assert result is not None
        size = (clip.shape[2], clip.shape[1])
        frames = read_clip(result.path, "video").frames(size, "cover", fps=8, most=999)
    return [("given", some(frames[:9])), (f"new: {GONE_ON}", some(frames[9:]))]


def draw(rows: list[Row]) -> Image.Image:
    """A row of frames for each, what it shows under it."""
    height, width = rows[0][1][0].shape[:2]
    step = height + LINE + GAP
    columns = max(len(frames) for _, frames in rows)
    sheet = Image.new("RGB", (columns * (width + GAP) - GAP, len(rows) * step), "white")
    for row, (text, frames) in enumerate(rows):
        for column, frame in enumerate(frames):
            sheet.paste(Image.fromarray(frame), (column * (width + GAP), row * step))
        ImageDraw.Draw(sheet).text((0, row * step + height + 1), text, fill="black")
    return sheet


if __name__ == "__main__":
    main()
