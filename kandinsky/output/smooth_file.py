"""A video file to another one with more frames a second."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from kandinsky.config import INTERPOLATORS
from kandinsky.errors import shown
from kandinsky.interpolate.interpolator import load_interpolator
from kandinsky.interpolate.minterpolate import minterpolated
from kandinsky.interpolate.stream import check_factor, interpolated
from kandinsky.output.inputs import check_no_input
from kandinsky.output.options import OutputOptions, output_of
from kandinsky.output.paths import VIDEO_CODECS, check_target
from kandinsky.output.read_video import VideoFile, open_video, read_frames
from kandinsky.output.video import Encoding, VideoWriter, check_encoder
from kandinsky.user_files.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """What is to be done, checked.

    Args:
        video: that is read.
        path: that is written.
        factor: 2, 3 or 4 times as many frames a second.
        way: one of `INTERPOLATORS`.
        encoding: of the new file.
        device: where the network runs.
    """

    video: VideoFile
    path: Path
    factor: int
    way: str
    encoding: Encoding
    device: torch.device


def smoothing_of(
    file: str,
    save_path: str | None = None,
    *,
    factor: int = 3,
    way: str | None = None,
    options: OutputOptions,
    device: torch.device,
) -> Smoothing:
    """Check the arguments; of the video, the first frame is read.

    Args:
        save_path: None is the file's name with `-smooth`, as mp4 where its ending is not one that we write.
        way: one of `INTERPOLATORS`; None is the first.
        options: `crf` and `codec` of the new file.

    Raises:
        ValueError: an argument is not what it may be.
        VideoError: the file is no video.
    """
    check_factor(factor)
    if way not in (None, *INTERPOLATORS):
        raise ValueError(f"interpolate_with={way!r}: allowed are {', '.join(map(repr, INTERPOLATORS))}")
    source = user_path(file, "file")
    if not source.is_file():
        raise ValueError(f"file={shown(str(source))}: there is no such file")
    ending = source.suffix if source.suffix.lower() in VIDEO_CODECS else ".mp4"
    target = save_path or str(source.with_name(f"{source.stem}-smooth{ending}"))
    output, path = output_of(target, options, is_image=False, model_fps=1)
    if path is None or output.codec is None or output.crf is None:
        raise ValueError(f"save_path={shown(target)}: must end with one of {', '.join(VIDEO_CODECS)}")
    check_target(target)
    check_no_input(path, [source])
    check_encoder(output.codec)
    video = open_video(source)
    if video.width % 2 or video.height % 2:
        size = f"{video.width}x{video.height}"
        raise ValueError(f"file={shown(str(source))}: it has {size} pixels; allowed are even numbers")
    encoding = Encoding(output.codec, output.crf)
    return Smoothing(
        video=video, path=path, factor=factor, way=way or INTERPOLATORS[0], encoding=encoding, device=device
    )


def smooth(smoothing: Smoothing) -> int:
    """Write the file, which appears when it is complete; returns its number of frames.

    Raises:
        VideoError: the video cannot be read to its end, or not written.
    """
    video, factor = smoothing.video, smoothing.factor
    with (
        VideoWriter(
            smoothing.path,
            width=video.width,
            height=video.height,
            fps=video.fps * factor,
            encoding=smoothing.encoding,
        ) as writer,
        closing(_smoothed(read_frames(video), smoothing)) as chunks,
    ):
        for chunk in chunks:
            writer.write(chunk)
        writer.finish()
        return writer.num_frames


def _smoothed(parts: Iterator[np.ndarray], smoothing: Smoothing) -> Generator[np.ndarray]:
    if smoothing.way == "ffmpeg":
        yield from minterpolated(parts, smoothing.factor)
        return
    chunks = (torch.from_numpy(part.copy()).to(smoothing.device) for part in parts)
    made = interpolated(chunks, smoothing.factor, load_interpolator(smoothing.device))
    yield from (chunk.cpu().numpy() for chunk in made)
