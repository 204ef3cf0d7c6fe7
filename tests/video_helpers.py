"""Small clips for tests of what reads videos, made on the spot by the ffmpeg that writes videos."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np

from kandinsky.config import FLASH_512
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.video import VideoWriter

SIZES = replace(FLASH_512, resolution=64, sizes=((32, 32), (48, 32)), max_seconds=2, text_tokens=12)
"""A model set of small sizes, at 8 frames a second."""
FFV1 = ("-c:v", "ffv1")
H264 = ("-c:v", "libx264", "-crf", "1", "-pix_fmt", "yuv420p")


def make(folder: Path, source: str, outputs: dict[str, tuple[str, ...]]) -> None:
    """Files of one picture, in one run of ffmpeg.

    Args:
        source: of ffmpeg's device `lavfi`.
        outputs: name of each file to its filters, and what else ffmpeg is to be told.
    """
    command = ["-f", "lavfi", "-i", source]
    for name, (filters, *options) in outputs.items():
        command += ["-map", "0:v", "-vf", filters, *(options or FFV1), str(folder / name)]
    run(*command)


def run(*arguments: str) -> None:
    """Run ffmpeg, which has to succeed."""
    done = subprocess.run([ffmpeg(), "-v", "error", "-y", "-nostdin", *arguments], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def write_video(path: Path, *, frames: int, width: int = 64, height: int = 64, fps: int = 8) -> None:
    """Gray, brighter in each frame."""
    levels = np.linspace(10, 240, frames).astype(np.uint8)
    with VideoWriter(path, width=width, height=height, fps=fps) as writer:
        writer.write(np.broadcast_to(levels[:, None, None, None], (frames, height, width, 3)).copy())
        writer.finish()


def write_captions(folder: Path, names: list[str]) -> None:
    """`captions.jsonl` for some files."""
    lines = [json.dumps({"file": name, "caption": f"clip {name[0]}"}) for name in names]
    (folder / "captions.jsonl").write_text("\n".join(lines) + "\n")
