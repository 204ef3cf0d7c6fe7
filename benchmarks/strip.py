"""Frames of the embedded tiny model for six prompts, as the README shows them, and whether they show what was asked.

    python benchmarks/strip.py [--out docs/strip.png] [--weights W]
    python benchmarks/strip.py --size tiny --device cpu --out strip.png      # to try it: one prompt, one second

Nothing is timed; the limit is that every clip is as asked, by a judge that is no network. The last line is JSON.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw
from script import device_in, finish, machine, parser_of
from torch import Tensor

from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.options import OutputOptions
from kandinsky.output.result import FramesResult
from kandinsky.request import request_of
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
SIZES = {"full": (6, 2), "tiny": (1, 1)}
"""Prompts, and seconds of each."""
FRAMES, GAP, LINE = 6, 4, 14


def clips_of(prompts: Sequence[str], seconds: int, weights: Path, device: torch.device) -> list[Tensor]:
    """uint8 `[frames, height, width, 3]` of each prompt."""
    pipe = get_T2V_pipeline(device, cache_dir=weights, local_files_only=True, progress=False)
    options = OutputOptions(type="pt")
    request = request_of(list(prompts), time_length=seconds, seed=0, model_set=pipe.model_set, options=options)
    clips = [result.frames for result in pipe.run(request) if isinstance(result, FramesResult)]
    return [clip for clip in clips if isinstance(clip, Tensor)]


def draw(prompts: Sequence[str], clips: Sequence[Tensor]) -> Image.Image:
    """A row of frames for each prompt, the prompt under it."""
    height, width = clips[0].shape[1:3]
    step = height + LINE + GAP
    sheet = Image.new("RGB", (FRAMES * (width + GAP) - GAP, len(clips) * step), "white")
    for row, (prompt, clip) in enumerate(zip(prompts, clips, strict=True)):
        for column, index in enumerate(torch.linspace(0, len(clip) - 1, FRAMES).round().int().tolist()):
            sheet.paste(Image.fromarray(clip[index].numpy()), (column * (width + GAP), row * step))
        ImageDraw.Draw(sheet).text((0, row * step + height + 1), prompt, fill="black")
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "strip.png", help="picture to draw")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny", help="default: the embedded ones")
    given = parser.parse_args(arguments)
    device, (count, seconds) = device_in(given), SIZES[given.size]
    prompts = PROMPTS[:count]
    clips = clips_of(prompts, seconds, given.weights, device)
    as_asked = 0
    for prompt, clip in zip(prompts, clips, strict=True):
        wrong = [name for name, right in agreement(parse(prompt), judge(clip)).items() if not right]
        as_asked += not wrong
        print(f"{prompt}: {'as asked' if not wrong else 'wrong: ' + ', '.join(wrong)}")
    draw(prompts, clips).save(given.out)
    finish({**machine(device), "size": given.size, "as_asked": as_asked, "limit": count}, given)


if __name__ == "__main__":
    main()
