"""Frames of the embedded tiny model that begin from a picture, change a video and go on from one, as the README shows.

    python benchmarks/known_strip.py [--out docs] [--weights W]
    python benchmarks/known_strip.py --size tiny --device cpu --out .     # to try it: a picture of each

Writes `known_image.png`, `known_video.png` and `known_extend.png`: what is given stands in the first row or column.
Nothing is timed; the limit is that every clip that begins from a picture is as asked, by a judge that is no network.
The last line is JSON.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image, ImageDraw
from script import device_in, finish, machine, parser_of
from torch import Tensor

from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.read_clip import read_clip
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.training.world.grammar import parse
from kandinsky.training.world.judge import agreement, judge
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


def some(clip: Tensor | np.ndarray, count: int = FRAMES) -> list[np.ndarray]:
    """Frames of a clip, evenly spaced from the first to the last."""
    picked = np.linspace(0, len(clip) - 1, count).round().astype(int)
    return [np.asarray(clip[index]) for index in picked]


def drawn(text: str, frames: int) -> Tensor:
    """A clip of a caption, as the world draws it."""
    return render([parse(text)], frames, generator=torch.Generator().manual_seed(5), device="cpu")[0]


def image_rows(pipe: Kandinsky4T2VPipeline, texts: Sequence[str]) -> tuple[list[Row], int]:
    """A picture of the world, then six frames that begin with it; and how many are as asked."""
    rows, right = [], 0
    for text in texts:
        picture = drawn(text, 17)[0]
        clip = cast("Tensor", pipe(text, time_length=2, seed=1, image=picture, output_type="pt"))
        right += all(agreement(parse(text), judge(clip)).values())
        rows.append((f"picture, then: {text}", [picture.numpy(), *some(clip)]))
    return rows, right


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


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny", help="default: the embedded ones")
    given = parser.parse_args(arguments)
    device = device_in(given)
    pipe = get_T2V_pipeline(device, cache_dir=given.weights, local_files_only=True, progress=False)
    texts = PICTURES if given.size == "full" else PICTURES[:1]
    images, right = image_rows(pipe, texts)
    for name, rows in (("image", images), ("video", video_rows(pipe)), ("extend", extend_rows(pipe))):
        draw(rows).save(given.out / f"known_{name}.png")
    finish({**machine(device), "size": given.size, "as_asked": right / len(texts), "limit": 1}, given)


if __name__ == "__main__":
    main()
