"""Where a result goes: the endings that a path may have, and whether anything can be written there."""

import os
import tempfile
from pathlib import Path

from kandinsky.errors import shown
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.user_files.paths import user_path

VIDEO_CODECS = {
    ".mp4": ("h264", "hevc"),
    ".mov": ("h264", "hevc"),
    ".mkv": ("h264", "hevc", "vp9"),
    ".webm": ("vp9",),
}
"""Codecs of a video file by its ending, the first one is the default."""
ANIMATION_ENDINGS = (".gif", ".webp")
VIDEO_ENDINGS = (*VIDEO_CODECS, *ANIMATION_ENDINGS)
IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp")
MAX_NAME_BYTES = 255
"""What file systems allow."""


def path_of(save_path: str | os.PathLike[str], *, is_image: bool = False) -> Path:
    """The file or folder that is meant, by its ending alone; nothing is looked up.

    For videos a path that ends in a slash is a folder for png frames; its `suffix` is "".

    Raises:
        ValueError: not a path, or one whose ending is not allowed.
    """
    path, given = user_path(save_path, "save_path"), str(save_path)
    if not is_image and given.endswith(("/", os.sep)):
        if path.suffix or path.name in ("", ".."):
            raise ValueError(f"save_path={shown(given)}: a folder of png frames must have a name without an ending")
        return path
    endings = IMAGE_ENDINGS if is_image else VIDEO_ENDINGS
    if path.suffix.lower() not in endings:
        hint = "" if is_image else ", or with / for a folder of png frames"
        raise ValueError(f"save_path={shown(given)}: must end with one of {', '.join(endings)}{hint}")
    return path


def check_target(save_path: str | os.PathLike[str], *, is_image: bool = False) -> None:
    """Check that a result can be written to `save_path`; see `path_of`.

    Raises:
        ValueError: wrong ending, a folder that is missing or cannot be written, a target that may not be replaced, or
            no encoder.
    """
    path, given = path_of(save_path, is_image=is_image), str(save_path)
    _check_folder(path.parent, given)
    _check_name(path, given)
    if not path.suffix:
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise ValueError(f"save_path={shown(given)} is not empty; name a new folder for the frames")
    elif path.is_dir():
        raise ValueError(f"save_path={shown(given)} is a folder; a file name is needed")
    if path.suffix.lower() in VIDEO_CODECS:
        ffmpeg()


def _check_name(path: Path, given: str) -> None:
    try:
        fits = "\0" not in given and len(os.fsencode(path.name)) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        fits = False
    if not fits:
        raise ValueError(
            f"save_path={shown(given)}: allowed is a name in UTF-8 without \\0, of at most {MAX_NAME_BYTES} bytes"
        )


def _check_folder(folder: Path, given: str) -> None:
    if not os.path.isdir(folder):  # noqa: PTH112  # Path's raises OSError for a name that is too long
        raise ValueError(f"save_path={shown(given)}: the folder {str(folder)!r} does not exist; create it first")
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"save_path={shown(given)}: cannot write in {str(folder)!r}: {error.strerror}") from error
