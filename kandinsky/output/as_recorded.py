"""How a file is written that is made again, or finished later: as its record says, where nobody says otherwise.

`kandinsky replay`, `kandinsky resume` and `pipe.decode_to` share this.
"""

import dataclasses
import os

from kandinsky.output.options import OutputOptions
from kandinsky.output.paths import VIDEO_CODECS
from kandinsky.output.record import Record
from kandinsky.user_files.paths import user_path


def as_recorded(given: OutputOptions, record: Record, save_path: str | os.PathLike[str]) -> OutputOptions:
    """Options with what the record says where nothing was given.

    The codec is the record's if a file with the path's ending may have it, and the crf is the record's if the codec is:
    the same number is another quality for another codec. An image has none of these.

    Args:
        given: None in it is what the record is asked for.
        save_path: of the new file; upper and lower case of its ending are the same.

    Raises:
        ValueError: `save_path` is no path.
    """
    if record.time_length == 0:
        return given
    allowed = VIDEO_CODECS.get(user_path(save_path, "save_path").suffix.lower(), ())
    codec = record.codec if given.codec is None and record.codec in allowed else given.codec
    keeps = codec is not None and codec == record.codec and codec in allowed
    return dataclasses.replace(
        given,
        fps=record.fps if given.fps is None else given.fps,
        codec=codec,
        crf=record.crf if given.crf is None and keeps else given.crf,
        interpolate=record.interpolate if given.interpolate is None else given.interpolate,
        interpolate_with=record.interpolate_with if given.interpolate is None else given.interpolate_with,
    )
