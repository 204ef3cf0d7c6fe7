"""Clips that a call gives, as a model set wants them: its frame rate, upright, fitted to a size.

A file is read by ffmpeg, whatever its rate (also a varying one), rotation or sound, and resampled to the model's rate.
A list of pictures or an array is taken to have that rate. A file that ffmpeg complains about is refused, not repaired.
"""

import io
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kandinsky.errors import shown
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.known.fit import Size, as_tensor, fitted
from kandinsky.output.read_picture import as_rgb, read_mask, read_picture, same_size
from kandinsky.user_files.paths import user_path

ALLOWED = (
    "a video's path, a list of PIL images, or an array or tensor [frames, height, width, 3] of uint8 or from 0 to 1"
)
CHUNK_FRAMES = 8
PIPE_BYTES = 2**20
"""The most that Linux gives to everybody; elsewhere it means nothing."""
SCALES = {
    "cover": "scale={0}:{1}:force_original_aspect_ratio=increase:flags=lanczos,crop={0}:{1}",
    "contain": "scale={0}:{1}:force_original_aspect_ratio=decrease:flags=lanczos,pad={0}:{1}:-1:-1:black",
    "stretch": "scale={0}:{1}:flags=lanczos",
}


@dataclass(frozen=True, eq=False)
class Clip:
    """A clip that is there; its frames are read when they are asked for.

    Args:
        name: of the argument, for messages.
        size: of its frames, upright.
        path: of its file; None if it came as pictures.
        pictures: empty if it is a file.
    """

    name: str
    size: Size
    path: Path | None
    pictures: tuple[Image.Image, ...] = ()

    def chunks(self, size: Size, fit: str, *, fps: int, grey: bool = False) -> Iterator[Tensor]:
        """All frames, some at a time: uint8 `[frames, height, width, 3]`, or grey without the last axis.

        Raises:
            ValueError: the file is damaged.
        """
        if self.path is None:
            for start in range(0, len(self.pictures), CHUNK_FRAMES):
                some = self.pictures[start : start + CHUNK_FRAMES]
                yield torch.stack([as_tensor(fitted(picture, size, fit)) for picture in some])
            return
        filters = f"fps={fps}:eof_action=pass,{SCALES[fit].format(*size)},setsar=1"
        wanted = ("-vf", filters, "-f", "rawvideo", "-pix_fmt", "gray" if grey else "rgb24")
        shape = (size[1], size[0]) if grey else (size[1], size[0], 3)
        nbytes = int(np.prod(shape))
        for part in _ffmpeg(self.path, self.name, *wanted, nbytes=CHUNK_FRAMES * nbytes):
            if len(part) % nbytes:
                raise ValueError(f"{self.name}={str(self.path)!r}: its last frame is cut off")
            yield torch.frombuffer(part, dtype=torch.uint8).view(-1, *shape)

    def frames(self, size: Size, fit: str, *, fps: int, most: int, grey: bool = False) -> Tensor:
        """The first `most` frames, or as many as there are."""
        found: list[Tensor] = []
        for chunk in self.chunks(size, fit, fps=fps, grey=grey):
            found.append(chunk[: most - sum(map(len, found))])
            if sum(map(len, found)) >= most:
                break
        if not found:
            raise ValueError(f"{self.name}={shown(str(self.path))}: no frame in it")
        return torch.cat(found)


def read_clip(given: object, name: str, *, grey: bool = False) -> Clip:
    """Look at a clip.

    Args:
        given: what `ALLOWED` says.
        name: of the argument, for messages.
        grey: it is a mask: arrays may have no axis of channels, and be bool.

    Raises:
        ValueError: it is no clip, is empty, or its first frame cannot be read.
    """
    if isinstance(given, str | os.PathLike):
        path = user_path(given, name)
        if not path.is_file():
            raise ValueError(f"{name}={shown(str(given))}: no such file")
        return Clip(name, _picture_size(path, name), path)
    read = read_mask if grey else read_picture
    if isinstance(given, list | tuple) and given:
        pictures = tuple(read(picture, f"{name}[{index}]") for index, picture in enumerate(given))
        same_size(pictures, name)
        return Clip(name, pictures[0].size, None, pictures)
    if isinstance(given, np.ndarray | torch.Tensor) and given.ndim in ((3, 4) if grey else (4,)) and len(given):
        if grey:
            return Clip(name, *_of_pictures([read_mask(frame, name) for frame in given]))
        array = given.detach().cpu().numpy() if isinstance(given, torch.Tensor) else given
        return Clip(name, *_of_pictures([Image.fromarray(frame) for frame in as_rgb(array, name)]))
    raise ValueError(f"{name}={shown(given)}: allowed is {ALLOWED}")


def _of_pictures(pictures: list[Image.Image]) -> tuple[Size, None, tuple[Image.Image, ...]]:
    return pictures[0].size, None, tuple(pictures)


def _picture_size(path: Path, name: str) -> Size:
    """Width and height of a file's first frame, upright."""
    wanted = ("-frames:v", "1", "-c:v", "ppm", "-f", "image2pipe")
    header = re.match(rb"P6\s+(\d+)\s+(\d+)\s", b"".join(_ffmpeg(path, name, *wanted, nbytes=1 << 20)))
    if header is None:
        raise ValueError(f"{name}={shown(str(path))}: no frame in it")
    return int(header[1]), int(header[2])


def _ffmpeg(path: Path, name: str, *wanted: str, nbytes: int) -> Iterator[bytearray]:
    """What ffmpeg makes of a file's first video stream, so many bytes at a time (the last may be fewer).

    It is given the open file alone: a playlist that somebody calls a video cannot have it open others.

    Raises:
        ValueError: ffmpeg complains; the message has its words.
    """
    source = ["-v", "error", "-xerror", "-nostdin", *("-protocol_whitelist", "fd", "-fd", "0", "-i", "fd:")]
    with tempfile.TemporaryFile() as said, path.open("rb") as file:  # no pipe, which a talkative ffmpeg would fill
        process = subprocess.Popen(
            [ffmpeg(), *source, "-map", "0:v:0", *wanted, "-"],
            stdin=file,
            stdout=subprocess.PIPE,
            stderr=said,
            start_new_session=True,
            pipesize=PIPE_BYTES,
        )
        assert isinstance(process.stdout, io.BufferedReader)
        any_frame = False
        try:
            part = bytearray(nbytes)
            while count := process.stdout.readinto(part):
                any_frame = True
                yield part if count == nbytes else part[:count]
                part = bytearray(nbytes)
            status = process.wait()
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            if status or lines or not any_frame:  # of a file that was cut off it complains, but ends with status 0
                reason = lines[-1] if lines else f"ffmpeg ended with status {status} and no frame"
                raise ValueError(f"{name}={shown(str(path))} cannot be read: {reason}")
        finally:
            process.kill()  # who reads on no further
            process.stdout.close()
            process.wait()
