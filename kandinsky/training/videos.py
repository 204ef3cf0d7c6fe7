"""Frames of a video file as a model set wants them: its frame rate, one of its sizes, whole seconds.

ffmpeg does the work, at once for a whole clip. A file that it complains about is refused, not repaired: a clip with
damaged frames would be trained on. Doesn't look for cuts between scenes.
"""

import math
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.config import ModelSet
from kandinsky.output.video import ffmpeg

PATIENCE = 600
"""Seconds that ffmpeg may take for one file."""


class UnreadableVideoError(Exception):
    """A file that gives no clip; the message says why."""


def read_clip(path: Path, model_set: ModelSet, *, seconds: Sequence[int] | None = None) -> Tensor:
    """The beginning of a video, resized to cover the allowed size whose proportions are nearest, and cut to its middle.

    Args:
        model_set: tells frame rate and sizes.
        seconds: allowed lengths, of which the longest that the video has is taken; every whole second if None.

    Returns:
        uint8 `[frames, height, width, 3]`: one frame of an image, else the frames of whole seconds and one more.

    Raises:
        UnreadableVideoError: the file is missing, damaged, no video, or too short.
    """
    if not path.is_file():
        raise UnreadableVideoError("no such file")
    allowed = sorted(seconds if seconds is not None else range(1, model_set.max_seconds + 1))
    width, height = nearest_size(picture_size(path), model_set.sizes)
    filters = (
        f"fps={model_set.fps}:eof_action=pass",  # else an image has no frame
        f"scale={width}:{height}:force_original_aspect_ratio=increase:flags=area",
        f"crop={width}:{height}",
    )
    most = frames_of(allowed[-1], model_set)
    pixels = _ffmpeg(path, "-vf", ",".join(filters), "-frames:v", str(most), "-f", "rawvideo", "-pix_fmt", "rgb24")
    frames = torch.frombuffer(bytearray(pixels), dtype=torch.uint8).view(-1, height, width, 3)
    if len(frames) == 1:
        return frames
    fitting = [length for length in allowed if frames_of(length, model_set) <= len(frames)]
    if not fitting:
        needed = frames_of(allowed[0], model_set)
        raise UnreadableVideoError(f"too short: {len(frames)} frames at {model_set.fps} a second, needed are {needed}")
    return frames[: frames_of(fitting[-1], model_set)]


def frames_of(seconds: int, model_set: ModelSet) -> int:
    """Frames of a clip, as many as its latent frames decode to."""
    step = model_set.temporal_compression
    return seconds * model_set.fps // step * step + 1


def nearest_size(size: tuple[int, int], sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Of (width, height) pairs the one whose proportions are nearest to those of `size`."""
    return min(sizes, key=lambda each: abs(math.log(each[0] * size[1] / (each[1] * size[0]))))


def picture_size(path: Path) -> tuple[int, int]:
    """Width and height of a video's first frame, upright.

    Raises:
        UnreadableVideoError: there is none.
    """
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s", _ffmpeg(path, "-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe"))
    if header is None:
        raise UnreadableVideoError("no frame in it")
    return int(header[1]), int(header[2])


def _ffmpeg(path: Path, *wanted: str) -> bytes:
    """What ffmpeg makes of a file's first video stream; empty is an error."""
    source = ["-v", "error", "-xerror", "-nostdin", "-i", f"file:{path}", "-map", "0:v:0"]
    try:
        done = subprocess.run([ffmpeg(), *source, *wanted, "-"], capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UnreadableVideoError(f"not read in {PATIENCE} s") from None
    said = done.stderr.decode(errors="replace").strip()
    if done.returncode or not done.stdout:
        raise UnreadableVideoError(said or f"ffmpeg ended with status {done.returncode} and no frame")
    return done.stdout
