"""Frames of a video file, as a player shows them, one part after the other.

Rotation is applied by ffmpeg; pixels are taken as they are stored, whatever their proportions. Frames of a variable
rate come as they follow one another.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np

from kandinsky.errors import VideoError
from kandinsky.ffmpeg.program import ffmpeg

FRAMES = 8
"""Of each part."""


@dataclass(frozen=True)
class VideoFile:
    """A video in a file: pixels, and frames per second."""

    path: Path
    width: int
    height: int
    fps: Fraction


def open_video(path: Path) -> VideoFile:
    """Look at the first frame.

    Raises:
        VideoError: ffmpeg finds no video in the file.
    """
    command = [ffmpeg(), "-v", "error", "-i", f"file:{path}", "-frames:v", "1", "-pix_fmt", "yuv444p"]
    done = subprocess.run([*command, "-f", "yuv4mpegpipe", "-"], capture_output=True, check=False)
    header = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", done.stdout)
    if header is None:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        raise VideoError(f"{path}: no video to read: {said[-1] if said else 'no frames'}")
    width, height, over, under = map(int, header.groups())
    return VideoFile(path, width, height, Fraction(over, under))


def read_frames(video: VideoFile) -> Iterator[np.ndarray]:
    """Parts of up to `FRAMES` frames, uint8 `[frames, height, width, 3]`, at the video's `fps`.

    Of a video whose rate varies, as a telephone's does, frames are repeated or left out, so that its length stays.

    Raises:
        VideoError: ffmpeg failed in the middle.
    """
    rate = ["-vf", "setpts=PTS-STARTPTS", "-fps_mode", "cfr", "-r", str(video.fps)]
    target = ["-map", "0:v:0", *rate, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    size = video.width * video.height * 3
    process = subprocess.Popen(
        [ffmpeg(), "-v", "error", "-xerror", "-nostdin", "-i", f"file:{video.path}", *target],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        while data := process.stdout.read(FRAMES * size):
            if len(data) % size:
                raise VideoError(f"{video.path}: it ends in the middle of a frame")
            yield np.frombuffer(data, np.uint8).reshape(-1, video.height, video.width, 3)
        if process.wait() != 0:
            raise VideoError(f"{video.path}: ffmpeg could not read all of it (exit status {process.returncode})")
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
