"""Frames of the embedded tiny model for six prompts, as the README shows them, and whether they show what was asked.

    python benchmarks/strip.py [--out docs/strip.png] [--weights W]
    python benchmarks/strip.py --lora weights/tiny/lora/striped.safetensors --out docs/strip_lora.png
    python benchmarks/strip.py --size tiny --device cpu --out strip.png      # to try it: one prompt, one second

With `--lora`, frames of three prompts with what it taught, without it and with it.

Nothing is timed; the limit is that every clip is as asked, by a judge that is no network. The last line is JSON.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
STRIPED = (
    "a large red circle in the middle moves right on a striped dark background",
    "a small yellow triangle at the top moves left on a striped gray background",
    "a large blue cross on the left moves down on a striped light background",
)
SIZES = {"full": (6, 2), "tiny": (1, 1)}
"""Prompts at most, and seconds of each."""
FRAMES, GAP, LINE = 6, 4, 14


def clips_of(
    prompts: Sequence[str], seconds: int, weights: Path, device: torch.device, *, lora: Path | None = None
) -> list[Tensor]:
    """uint8 `[frames, height, width, 3]` of each prompt."""
    loras: dict[Any, float] = {} if lora is None else {lora: 1.0}
    pipe = get_T2V_pipeline(device, cache_dir=weights, local_files_only=True, loras=loras, progress=False)
    options = OutputOptions(type="pt")
    request = request_of(list(prompts), time_length=seconds, seed=0, model_set=pipe.model_set, options=options)
    clips = [result.frames for result in pipe.run(request) if isinstance(result, FramesResult)]
    return [clip for clip in clips if isinstance(clip, Tensor)]


def draw(lines: Sequence[str], clips: Sequence[Tensor]) -> Image.Image:
    """A row of frames for each clip, the line that belongs to it under it."""
    height, width = clips[0].shape[1:3]
    step = height + LINE + GAP
    sheet = Image.new("RGB", (FRAMES * (width + GAP) - GAP, len(clips) * step), "white")
    for row, (line, clip) in enumerate(zip(lines, clips, strict=True)):
        for column, index in enumerate(torch.linspace(0, len(clip) - 1, FRAMES).round().int().tolist()):
            sheet.paste(Image.fromarray(clip[index].numpy()), (column * (width + GAP), row * step))
        ImageDraw.Draw(sheet).text((0, row * step + height + 1), line, fill="black")
    return sheet


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__, devices=("cpu", "cuda"))
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "strip.png", help="picture to draw")
    parser.add_argument("--weights", type=Path, default=ROOT / "weights" / "tiny", help="default: the embedded ones")
    parser.add_argument("--lora", type=Path, help="low-rank weights that make striped backgrounds")
    given = parser.parse_args(arguments)
    device, (count, seconds) = device_in(given), SIZES[given.size]
    prompts = (PROMPTS if given.lora is None else STRIPED)[:count]
    clips = clips_of(prompts, seconds, given.weights, device, lora=given.lora)
    as_asked = 0
    for prompt, clip in zip(prompts, clips, strict=True):
        seen = judge(clip, new_textures=given.lora is not None)
        wrong = [name for name, right in agreement(parse(prompt), seen).items() if not right]
        as_asked += not wrong
        print(f"{prompt}: {'as asked' if not wrong else 'wrong: ' + ', '.join(wrong)}")
    lines = prompts
    if given.lora is not None:
        pairs = zip(clips_of(prompts, seconds, given.weights, device), clips, strict=True)
        clips = [clip for pair in pairs for clip in pair]
        lines = [f"{prompt}{how}" for prompt in prompts for how in (" (without)", " (with the LoRA)")]
    draw(lines, clips).save(given.out)
    finish({**machine(device), "size": given.size, "as_asked": as_asked, "limit": len(prompts)}, given)


if __name__ == "__main__":
    main()
