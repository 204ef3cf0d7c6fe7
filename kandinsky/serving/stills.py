"""Pictures of a finished video: the middle frame as a thumbnail, and frames from its begin to its end on one sheet.

Made when they are first asked for, and kept in the job's folder.
"""

import io
import math
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from kandinsky.atomic import replacing
from kandinsky.ffmpeg.program import ffmpeg

COLUMNS, ROWS = 5, 5
"""Of a sheet."""
TILE_WIDTH = 160
"""Pixels of a frame on it."""
QUALITY = 85
BY_PILLOW = (".gif", ".webp")
SECONDS = 60
"""For ffmpeg to read a video."""


def thumbnail(file: Path) -> Path:
    """The middle frame as a WebP.

    Raises:
        OSError: the video cannot be read.
    """
    return _kept(file.with_name("thumbnail.webp"), lambda: _frames(file, [_count(file) // 2])[0], "WEBP")


def spritesheet(file: Path) -> Path:
    """Up to 25 frames at equal distances, row after row, as a JPEG.

    Raises:
        OSError: the video cannot be read.
    """

    def sheet() -> Image.Image:
        count = _count(file)
        number = min(count, COLUMNS * ROWS)
        frames = _frames(file, [round(index * (count - 1) / max(number - 1, 1)) for index in range(number)])
        size = (TILE_WIDTH, round(TILE_WIDTH * frames[0].height / frames[0].width))
        made = Image.new("RGB", (size[0] * min(number, COLUMNS), size[1] * math.ceil(number / COLUMNS)))
        for index, frame in enumerate(frames):
            made.paste(frame.resize(size), (size[0] * (index % COLUMNS), size[1] * (index // COLUMNS)))
        return made

    return _kept(file.with_name("spritesheet.jpg"), sheet, "JPEG")


def _kept(target: Path, make: Callable[[], Image.Image], kind: str) -> Path:
    if not target.is_file():
        picture = make()
        with replacing(target) as path:
            picture.save(path, kind, quality=QUALITY)
    return target


def _count(file: Path) -> int:
    """How many frames a video has."""
    if file.suffix in BY_PILLOW:
        with Image.open(file) as image:
            return getattr(image, "n_frames", 1)
    said = _ffmpeg(file, "-c", "copy", "-f", "null", "-").stderr.decode(errors="replace")
    return int(re.findall(r"frame=\s*(\d+)", said)[-1])


def _frames(file: Path, numbers: Sequence[int]) -> list[Image.Image]:
    """Frames by their numbers from 0, which rise."""
    if file.suffix in BY_PILLOW:
        found = []
        with Image.open(file) as image:
            for number in numbers:
                image.seek(number)
                found.append(image.convert("RGB"))
        return found
    wanted = "+".join(f"eq(n,{number})" for number in numbers)
    data = _ffmpeg(
        file, "-vf", f"select='{wanted}'", "-fps_mode", "passthrough", "-c:v", "ppm", "-f", "image2pipe", "-"
    ).stdout
    found, place = [], io.BytesIO(data)
    while place.tell() < len(data):
        header = re.match(rb"P6\s+(\d+)\s+(\d+)\s+255\s", data[place.tell() : place.tell() + 64])
        assert header is not None
        length = header.end() + int(header[1]) * int(header[2]) * 3
        found.append(Image.open(io.BytesIO(place.read(length))))
    return found


def _ffmpeg(file: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    command = [ffmpeg(), "-nostdin", "-i", f"file:{file}", "-map", "0:v:0", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=True)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{file.name} took more than {SECONDS} s to read") from error
    except subprocess.CalledProcessError as error:  # whose own text has paths of this machine
        raise OSError(f"{file.name} cannot be read: ffmpeg ended with exit code {error.returncode}") from error
    return done
