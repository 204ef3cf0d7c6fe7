"""Frames to an image, an animation or a folder of images, through Pillow, with the record inside.

Like `video.VideoWriter`: a context manager with `write` and `finish`, and nothing at the target before the end. The
record is a text chunk called `comment` in a png, the comment of a gif, and the Exif ImageDescription of jpg and webp.
"""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from kandinsky.atomic import replacing

IMAGE_DESCRIPTION = 0x010E
FIRST_FRAME = "00000.png"
JPEG_PROMPT = 60_000
"""Bytes of a prompt that a jpg has room for: its Exif segment ends at 65,533, and the rest of a record is 1,000."""


class ImageWriter:
    """Collects uint8 frames `[frames, height, width, 3]` and writes them in `finish`; all stay in memory until then.

    Args:
        path: file or folder.
        save: writes frames `[frames, height, width, 3]` to a path.
    """

    def __init__(self, path: Path, save: Callable[[list[Image.Image], Path], None]):
        self.path = path
        self.num_frames = 0
        self._save = save
        self._frames: list[Image.Image] = []

    def write(self, frames: np.ndarray) -> None:
        """Append frames; they are copied."""
        self._frames += [Image.fromarray(frame.copy()) for frame in frames]
        self.num_frames = len(self._frames)

    def finish(self) -> None:
        """Write what was collected and put it in its place.

        Raises:
            OSError: it cannot be written.
        """
        with replacing(self.path) as partial:
            self._save(self._frames, partial)

    def __enter__(self) -> "ImageWriter":
        return self

    def __exit__(self, *_: object) -> None:
        self._frames.clear()


def image_writer(path: Path, comment: str | None) -> ImageWriter:
    """For one frame, as png, jpg or webp by the path's ending."""
    return ImageWriter(path, lambda frames, partial: frames[0].save(partial, **_settings(path.suffix, comment)))


def animation_writer(path: Path, comment: str | None, *, fps: int) -> ImageWriter:
    """For an endless gif or webp, by the path's ending."""

    def save(frames: list[Image.Image], partial: Path) -> None:
        unit = 10 if path.suffix.lower() == ".gif" else 1  # a gif counts hundredths of a second
        ends = [round(1000 / unit * index / fps) * unit for index in range(len(frames) + 1)]
        durations = [end - start for start, end in pairwise(ends)]
        settings = _settings(path.suffix, comment)
        frames[0].save(partial, save_all=True, append_images=frames[1:], duration=durations, loop=0, **settings)

    return ImageWriter(path, save)


def folder_writer(path: Path, comment: str | None) -> ImageWriter:
    """For a folder of `00000.png`, `00001.png`, ...; each has the record."""

    def save(frames: list[Image.Image], partial: Path) -> None:
        partial.mkdir()
        for index, frame in enumerate(frames):
            frame.save(partial / f"{index:05}.png", **_settings(".png", comment))

    return ImageWriter(path, save)


def _settings(ending: str, comment: str | None) -> dict[str, Any]:
    """What Pillow's `save` needs to put `comment` into a file of this kind, and its quality."""
    ending = ending.lower()
    settings: dict[str, Any] = {"quality": 95} if ending in (".jpg", ".jpeg", ".webp") else {}
    if comment is None:
        return settings
    if ending == ".png":
        text = PngInfo()
        text.add_itxt("comment", comment)
        return {"pnginfo": text}
    if ending == ".gif":
        return {"comment": comment.encode()}
    exif = Image.Exif()
    exif[IMAGE_DESCRIPTION] = comment.encode()
    return {**settings, "exif": exif}


def read_image_comment(path: Path) -> str | None:
    """The comment of an image file; None if it has none or is no image.

    Raises:
        UnicodeError: it is not UTF-8.
    """
    try:
        with Image.open(path) as image:
            image.load()  # text chunks may stand behind the picture
            is_text = image.format == "PNG"  # whatever the file is called
            found = image.info.get("comment") or image.getexif().get(IMAGE_DESCRIPTION)
    except (UnidentifiedImageError, OSError):
        return None
    if isinstance(found, str) and not is_text:
        found = found.encode("latin-1")  # as which Pillow reads Exif text
    return found.decode() if isinstance(found, bytes) else found
