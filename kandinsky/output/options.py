"""What a call gives back: which kind of file for which ending of the path, or frames; checked before a model runs."""

import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, cast

import numpy as np

from kandinsky.config import INTERPOLATORS
from kandinsky.output.image import JPEG_PROMPT, animation_writer, folder_writer, image_writer
from kandinsky.output.paths import VIDEO_CODECS, path_of
from kandinsky.output.video import CODECS, Encoding, VideoWriter
from kandinsky.video_shape import as_int

Kind = Literal["file", "pil", "np", "pt", "latent"]
FrameKind = Literal["pil", "np", "pt"]
KINDS: tuple[Kind, ...] = ("file", "pil", "np", "pt", "latent")
MAX_FPS = 120


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """As the caller gave them; None where nothing was said.

    Args:
        type: one of `KINDS`; None is a file for a video, and for an image a file if there is a path, else PIL.
        fps: frames per second that the file plays at; the frames stay the same.
        crf: quality of a video file: each 6 more halves the size. The best that plays everywhere is 1 for h264, else 0.
        codec: of a video file: h264, hevc or vp9.
        metadata: whether the record goes into the file.
        interpolate: 2, 3 or 4 times as many frames a second, for the same length.
        interpolate_with: one of `INTERPOLATORS`; None is the first.
    """

    type: str | None = None
    fps: int | None = None
    crf: int | None = None
    codec: str | None = None
    metadata: bool = True
    interpolate: int | None = None
    interpolate_with: str | None = None


@dataclass(frozen=True, kw_only=True)
class Output:
    """Checked options. `fps`, `crf` and `codec` are None where there is no file or it has no such thing."""

    kind: Kind
    fps: int | None
    crf: int | None
    codec: str | None
    metadata: bool
    interpolate: int | None = None
    interpolate_with: str | None = None


class Writer(Protocol):
    """A context manager: `write` frames, then `finish`; leaving without it leaves nothing behind."""

    num_frames: int

    def write(self, frames: np.ndarray) -> None: ...
    def finish(self) -> None: ...
    def __enter__(self) -> "Writer": ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


def output_of(
    save_path: str | os.PathLike[str] | None,
    options: OutputOptions,
    *,
    is_image: bool,
    model_fps: int,
    return_frames: object = False,
) -> tuple[Output, Path | None]:
    """What the caller wants back, and where; the path is None where that is not a file.

    Only the arguments are looked at: `paths.check_target` tells if the path can be written.

    Args:
        return_frames: the published argument, which means `type="pil"`.

    Raises:
        ValueError: an option, the path's ending, or what was combined is not allowed.
    """
    kind = _kind_of(options.type, save_path, is_image=is_image, return_frames=return_frames)
    if not isinstance(options.metadata, bool):
        raise ValueError(f"metadata={options.metadata!r}: allowed are True and False")
    _check_between(options, kind, is_image=is_image)
    way = interpolator_of(options.interpolate, options.interpolate_with)
    factor = None if options.interpolate is None else int(options.interpolate)  # NumPy's numbers are no JSON
    between = {"interpolate": factor, "interpolate_with": way}
    if kind != "file":
        _refuse(options, ("fps", "crf", "codec"), "nothing is written: it is for files")
        return Output(kind=kind, fps=None, crf=None, codec=None, metadata=options.metadata, **between), None
    if save_path is None:
        raise ValueError("save_path=None: allowed with output_type='file' is a path")
    if is_image:
        _refuse(options, ("fps", "crf", "codec"), "time_length=0 makes an image: it is for videos")
        path = path_of(save_path, is_image=True)
        return Output(kind=kind, fps=None, crf=None, codec=None, metadata=options.metadata), path
    path = path_of(save_path)
    usual = model_fps * (options.interpolate or 1)
    fps = usual if options.fps is None else _number("fps", options.fps, 1, MAX_FPS)
    codec, crf = _codec_of(path, options)
    return Output(kind=kind, fps=fps, crf=crf, codec=codec, metadata=options.metadata, **between), path


def _kind_of(given: object, save_path: object, *, is_image: bool, return_frames: object) -> Kind:
    if return_frames:
        if given not in (None, "pil"):
            raise ValueError(f"output_type={given!r}: with return_frames=True allowed are None and 'pil'")
        return "pil"
    if given is None:
        return "pil" if is_image and save_path is None else "file"
    if given not in KINDS:
        raise ValueError(f"output_type={given!r}: allowed are {', '.join(map(repr, KINDS))}")
    return cast("Kind", given)


def _check_between(options: OutputOptions, kind: Kind, *, is_image: bool) -> None:
    """Refuse frames between frames where there are none, or a way to make them without a number.

    Raises:
        ValueError: names the argument.
    """
    if options.interpolate is not None:
        from kandinsky.interpolate.stream import check_factor  # with torch, which a server's own process does without

        check_factor(options.interpolate)
    if options.interpolate_with not in (None, *INTERPOLATORS):
        allowed = ", ".join(map(repr, INTERPOLATORS))
        raise ValueError(f"interpolate_with={options.interpolate_with!r}: allowed are {allowed}")
    if options.interpolate is None:
        _refuse(options, ("interpolate_with",), "it is for interpolate=2, 3 or 4, which is not given")
    if is_image:
        _refuse(options, ("interpolate",), "time_length=0 makes an image: it is for videos")
    if kind == "latent":
        _refuse(options, ("interpolate",), "latents are returned before there are frames")


def interpolator_of(factor: int | None, asked: str | None) -> str | None:
    """What makes frames in between: what was asked for, else the first of `INTERPOLATORS`; None where none are made."""
    return None if factor is None else asked or INTERPOLATORS[0]


def _codec_of(path: Path, options: OutputOptions) -> tuple[str | None, int | None]:
    ending = path.suffix.lower()
    allowed = VIDEO_CODECS.get(ending)
    if allowed is None:
        _refuse(options, ("crf", "codec"), f"a {ending or 'folder of png frames'} has none; it is for video files")
        return None, None
    codec = allowed[0] if options.codec is None else options.codec
    if codec not in allowed:
        raise ValueError(f"codec={codec!r}: in a {ending} file allowed are {', '.join(map(repr, allowed))}")
    settings = CODECS[codec]
    crf = settings.crf if options.crf is None else _number("crf", options.crf, 0, settings.max_crf)
    if crf < settings.best_crf:
        said = f"crf={crf}: lossless {codec}, which browsers and QuickTime do not play; the best that they play is "
        warnings.warn(f"{said}crf={settings.best_crf}", UserWarning, stacklevel=2)
    return codec, crf


def _number(name: str, value: object, low: int, high: int) -> int:
    number = as_int(name, value, f"{low} to {high}")
    if not low <= number <= high:
        raise ValueError(f"{name}={value!r}: allowed is {low} to {high}")
    return number


def _refuse(options: OutputOptions, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        value = getattr(options, name)
        if value is not None:
            raise ValueError(f"{name}={value!r}: {reason}")


def check_prompt_fits(path: Path, prompt: str) -> None:
    """Refuse a prompt whose record the file has no room for.

    Raises:
        ValueError: says what to do instead.
    """
    size = len(json.dumps(prompt, ensure_ascii=False).encode())
    if path.suffix.lower() in (".jpg", ".jpeg") and size > JPEG_PROMPT:
        raise ValueError(
            f"save_path={str(path)!r}: a jpg has no room for a record with this prompt of {size} bytes, allowed are "
            f"{JPEG_PROMPT}; save as .png, or with metadata=False"
        )


def open_writer(path: Path, output: Output, *, width: int, height: int, comment: str | None) -> Writer:
    """A writer for a path and output of `output_of`."""
    if output.fps is None:
        return image_writer(path, comment)
    if output.codec is not None and output.crf is not None:
        encoding = Encoding(output.codec, output.crf)
        return VideoWriter(path, width=width, height=height, fps=output.fps, encoding=encoding, comment=comment)
    if not path.suffix:
        return folder_writer(path, comment)
    return animation_writer(path, comment, fps=output.fps)
