"""Frames of the embedded tiny model for six prompts, as the README shows them.

python benchmarks/strip.py [--out docs/strip.png] [--weights W] [--device cpu]
"""

import argparse
from pathlib import Path
from typing import cast

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from kandinsky.factory import get_T2V_pipeline
from kandinsky.training.world.grammar import parse
from kandinsky.training.world.judge import agreement, judge

ROOT = Path(__file__).parents[1]
PROMPTS = (
    "a large red circle in the middle moves right on a dark background",
    "a small yellow cross at the top moves left on a dark background",
    "a large blue square on the left moves up on a light background",
    "a small green triangle on the right moves down on a gray background",
    "a large purple cross in the middle stays still on a flickering gray background",
    "a small cyan circle at the bottom moves left on a flickering light background",
)
FRAMES, GAP, LINE = 6, 4, 14


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "strip.png")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny")
    parser.add_argument("--device", default="cpu")
    given = parser.parse_args()
    pipe = get_T2V_pipeline(given.device, cache_dir=given.weights, local_files_only=True)
    clips = cast("list[Tensor]", pipe(list(PROMPTS), time_length=2, seed=0, output_type="pt"))
    for prompt, clip in zip(PROMPTS, clips, strict=True):
        wrong = [name for name, right in agreement(parse(prompt), judge(clip)).items() if not right]
        print(f"{prompt}: {'as asked' if not wrong else 'wrong: ' + ', '.join(wrong)}")
    draw(clips).save(given.out)


def draw(clips: list[Tensor]) -> Image.Image:
    """A row of frames for each prompt, the prompt under it."""
    height, width = clips[0].shape[1:3]
    step = height + LINE + GAP
    sheet = Image.new("RGB", (FRAMES * (width + GAP) - GAP, len(clips) * step), "white")
    for row, (prompt, clip) in enumerate(zip(PROMPTS, clips, strict=True)):
        for column, index in enumerate(torch.linspace(0, len(clip) - 1, FRAMES).round().int().tolist()):
            sheet.paste(Image.fromarray(clip[index].numpy()), (column * (width + GAP), row * step))
        ImageDraw.Draw(sheet).text((0, row * step + height + 1), prompt, fill="black")
    return sheet


if __name__ == "__main__":
    main()
