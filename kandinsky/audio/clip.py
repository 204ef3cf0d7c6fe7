"""A video as V2A sees it: how long it is, whether it has a sound, and the frames that the encoder looks at.

ffprobe does not come with imageio-ffmpeg: what a file holds is read off its packets, which ffmpeg lists without
decoding them. A file is opened as one of `FORMATS` only, none of which is a list of other files.
"""

import hashlib
import os
import re
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from kandinsky.errors import UnreadableVideoError, shown
from kandinsky.ffmpeg.program import ffmpeg

FORMATS = ("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "nut", "mxf")
"""What a file may be, by ffmpeg's names."""
PATIENCE = 600
"""Seconds that ffmpeg may take for one file."""
MAX_SECONDS = 12
"""Of sound, and of the video that it is made for."""
SEEN_FRAMES = 96
"""That the encoder looks at, however many there are."""
SLACK = Fraction(1, 10)
"""Of a frame: so much less than a whole second is one, since some files round their times."""


@dataclass(frozen=True)
class Clip:
    """A video file.

    Args:
        path: of the file.
        frames: in its picture's stream.
        duration: seconds from the first frame to the end of the last.
        unit: seconds that the file counts times in.
        codec: of the picture, by ffmpeg's name.
        has_sound: whether there is a sound track already.
        digest: of the picture's packets, whatever their times: 64 hexadecimal digits.
    """

    path: Path
    frames: int
    duration: Fraction
    unit: Fraction
    codec: str
    has_sound: bool
    digest: str

    @property
    def fps(self) -> Fraction:
        """Frames per second, on average."""
        return self.frames / self.duration

    @property
    def seconds(self) -> int:
        """Whole seconds that get a sound, `MAX_SECONDS` at most."""
        return min(int(self.duration + SLACK / self.fps), MAX_SECONDS)

    @property
    def seen(self) -> list[int]:
        """Indices of the frames that the encoder looks at, spread evenly over `seconds`; some may come twice."""
        total = max(1, min(self.frames, int(self.seconds * self.fps + SLACK)))
        return np.linspace(0, total - 1, SEEN_FRAMES, dtype=int).tolist()

    @property
    def mark(self) -> str:
        """What tells what the encoder sees of this video from what it sees of others."""
        return hashlib.sha256(repr((self.digest, self.seen)).encode()).hexdigest()


def clip_of(path: Path) -> Clip:
    """What a video file holds; nothing is decoded.

    Raises:
        ValueError: there is no file, or a video that is shorter than a second.
        UnreadableVideoError: it is not a video, or has no picture.
    """
    if not path.is_file():
        raise ValueError(f"video={shown(str(path))}: there is no such file")
    done = _run(path, "-v", "info", wanted=("-map", "0:V:0", "-c", "copy", "-f", "framecrc", "-"))
    said, listed = done.stderr.decode(errors="replace"), done.stdout.decode()
    if "Input #0" not in said:
        raise UnreadableVideoError(f"{path} is not a video that can be read: {_complaint(said)}")
    lines = [line.split(",") for line in listed.splitlines() if line[:1].isdigit()]
    packets = [list(map(int, line[1:4])) for line in lines]
    if not packets:
        raise UnreadableVideoError(f"{path} has no video stream")
    unit = re.search(r"^#tb 0: (\S+)$", listed, re.MULTILINE)
    codec = re.search(r"^#codec_id 0: (\w+)", listed, re.MULTILINE)
    assert unit and codec
    shown_at = [packet[1] for packet in packets]
    ends = [start + packet[2] for start, packet in zip(shown_at, packets, strict=True)]
    clip = Clip(
        path=path,
        frames=len(packets),
        duration=(max(ends) - min(shown_at)) * Fraction(unit[1]),
        unit=Fraction(unit[1]),
        codec=codec[1],
        has_sound=re.search(r"^ +Stream #0:\d+.*: Audio: ", said, flags=re.MULTILINE) is not None,
        digest=hashlib.sha256(repr([line[4:6] for line in lines]).encode()).hexdigest(),
    )
    if not clip.duration or clip.seconds < 1:
        raise ValueError(
            f"video={shown(str(path))} is {float(clip.duration):.2f} s long: allowed is a video of a second or more"
        )
    return clip


def read_frames(clip: Clip) -> Tensor:
    """The frames of `clip.seen`, uint8 `[3, 96, height, width]`, upright.

    Raises:
        UnreadableVideoError: the file is damaged.
    """
    wanted = sorted(set(clip.seen))
    chosen = "+".join(f"eq(n\\,{index})" for index in wanted)
    settings = ("-map", "0:V:0", "-vf", f"select={chosen}", "-fps_mode", "passthrough", "-frames:v", str(len(wanted)))
    done = _run(
        clip.path, "-v", "error", wanted=(*settings, "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe", "-")
    )
    pictures = _pictures(done.stdout)
    if len(pictures) != len(wanted):
        said = _complaint(done.stderr.decode(errors="replace"))
        raise UnreadableVideoError(f"{clip.path}: {len(pictures)} of {len(wanted)} frames can be read: {said}")
    numbers = torch.tensor([wanted.index(index) for index in clip.seen])
    return torch.from_numpy(np.stack(pictures))[numbers].permute(3, 0, 1, 2)


def _run(path: Path, *settings: str, wanted: tuple[str, ...]) -> subprocess.CompletedProcess[bytes]:
    source = ["-hide_banner", "-nostats", "-nostdin", *settings, "-format_whitelist", ",".join(FORMATS)]
    command = [ffmpeg(), *source, "-i", f"file:{os.fspath(path)}", *wanted]
    try:
        return subprocess.run(command, capture_output=True, timeout=PATIENCE, check=False)
    except subprocess.TimeoutExpired:
        raise UnreadableVideoError(f"{path} was not read in {PATIENCE} s") from None


def _pictures(ppm: bytes) -> list[np.ndarray]:
    """Pictures `[height, width, 3]` of PPM files that stand one after the other."""
    pictures, start = [], 0
    while head := re.compile(rb"P6\s(\d+)\s(\d+)\s255\s").match(ppm, start):
        width, height = int(head[1]), int(head[2])
        end = head.end() + width * height * 3
        if end > len(ppm):
            break
        pictures.append(np.frombuffer(ppm, np.uint8, width * height * 3, head.end()).reshape(height, width, 3))
        start = end
    return pictures


def _complaint(said: str) -> str:
    """The last thing that ffmpeg said."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1] if lines else "ffmpeg does not say why"
