"""The record of a generation out of any file that the library writes."""

import os
from pathlib import Path

from kandinsky.errors import RecordError
from kandinsky.output.image import FIRST_FRAME, read_image_comment
from kandinsky.output.paths import VIDEO_CODECS
from kandinsky.output.record import Record
from kandinsky.output.unfinished import SUFFIX, load_unfinished
from kandinsky.output.video import read_comment


def read_record(file: str | os.PathLike[str]) -> Record:
    """The record in a video, an image, a folder of png frames or a file of latents.

    Raises:
        FileNotFoundError: there is no such file.
        RecordError: it has no record: it was written without, or by another program, or converted since; or what it has
            is damaged.
    """
    path = Path(file)
    if not path.exists():
        raise FileNotFoundError(f"no such file: {path}")
    if path.name.endswith(SUFFIX):
        return load_unfinished(path)[0].record
    path = path / FIRST_FRAME if path.is_dir() else path
    read = read_comment if path.suffix.lower() in VIDEO_CODECS else read_image_comment
    try:
        comment = read(path)
    except UnicodeError as error:
        raise RecordError(f"{file}: its comment is not a record of a generation ({error})") from error
    if comment is None:
        raise RecordError(f"{file} has no record of a generation: it was written without, or converted since")
    return Record.from_json(comment, file)
