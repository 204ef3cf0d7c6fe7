"""Where the ffmpeg program is: imageio-ffmpeg brings one, and `IMAGEIO_FFMPEG_EXE` names another."""

import shutil


def ffmpeg() -> str:
    """Path of the ffmpeg program.

    Raises:
        ValueError: there is none.
    """
    from imageio_ffmpeg import get_ffmpeg_exe

    try:
        program = get_ffmpeg_exe()
    except RuntimeError as error:
        raise ValueError(f"no ffmpeg to read or write videos with: {error}") from error
    if shutil.which(program) is None:
        raise ValueError(f"no ffmpeg to read or write videos with: {program!r} (IMAGEIO_FFMPEG_EXE) is not a program")
    return program
