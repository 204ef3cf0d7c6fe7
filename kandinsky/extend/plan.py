"""What an extension is: arguments to a checked plan of pieces. The source is read here, and nothing is written.

Each piece is a request of its own whose first frames, the overlap, are known: the last ones of the source, or of the
piece before. Memory does not grow with the length of source or result.

Legend: frames are uint8 [F, height, width, 3] at the model's rate.
"""

import hashlib
import os
import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from kandinsky.config import ModelSet
from kandinsky.errors import shown
from kandinsky.known.fit import FITS
from kandinsky.known.given import Mark
from kandinsky.output.inputs import check_no_input, size_of
from kandinsky.output.options import Output, OutputOptions, output_of
from kandinsky.output.paths import VIDEO_CODECS, check_target
from kandinsky.output.read_clip import Clip, read_clip
from kandinsky.output.video import check_encoder
from kandinsky.request import MAX_SEED, NO_OPTIONS, prompts_of
from kandinsky.video_shape import USUAL_SECONDS, VideoShape, as_int

MAX_SECONDS = 3600
KEPT_BYTES = 2**28
"""Of a source whose frames are kept between the check and the run; a longer one is read twice."""


@dataclass(frozen=True)
class Piece:
    """A request whose first frames are known."""

    shape: VideoShape
    seed: int


@dataclass(frozen=True, eq=False)
class Source:
    """A video that is gone on with.

    Args:
        clip: where its frames come from.
        width, height, fit: what they are fitted to, and how.
        fps: of the model.
        count: of its frames at that rate.
        kept: all of them in chunks, if they are few.
        mark: for the record.
    """

    clip: Clip
    width: int
    height: int
    fit: str
    fps: int
    count: int
    kept: tuple[Tensor, ...] | None
    mark: Mark

    def chunks(self) -> Iterator[Tensor]:
        """All frames, some at a time."""
        if self.kept is not None:
            yield from self.kept
        else:
            yield from self.clip.chunks((self.width, self.height), self.fit, fps=self.fps)


@dataclass(frozen=True, eq=False)
class Extension:
    """A checked extension.

    Args:
        prompt: of every piece.
        source: what is gone on with.
        pieces: in their order.
        overlap: seconds that each piece knows of what came before it.
        seconds: that come to the source's own.
        path, output: of the file.
        fit: as the call said it; None if it did not.
    """

    prompt: str
    source: Source
    pieces: tuple[Piece, ...]
    overlap: int
    seconds: int
    path: Path
    output: Output
    fit: str | None

    @property
    def known_frames(self) -> int:
        """Frames at the beginning of a piece that are known."""
        shape = self.pieces[0].shape
        return self.overlap * shape.fps + 1


def extension_of(
    video: object,
    text: str,
    save_path: str | os.PathLike[str] | None = None,
    *,
    seconds: int,
    overlap: int = 1,
    width: int | None = None,
    height: int | None = None,
    seed: int | None = None,
    fit: str | None = None,
    model_set: ModelSet,
    options: OutputOptions = NO_OPTIONS,
) -> Extension:
    """The extension that the arguments of `pipe.extend` mean.

    Raises:
        ValueError: an argument is not what it may be, or the video cannot be read.
    """
    prompts = prompts_of(text)
    if not isinstance(text, str):
        raise ValueError(f"text={shown(text)}: allowed is a string")
    seconds = _within("seconds", seconds, MAX_SECONDS)
    overlap = _within("overlap", overlap, model_set.max_seconds - 1)
    longest = min(USUAL_SECONDS, model_set.max_seconds - overlap)
    lengths = [min(longest, seconds - start) for start in range(0, seconds, longest)]
    first = secrets.randbelow(MAX_SEED - len(lengths)) if seed is None else as_int("seed", seed, f"0 to {MAX_SEED}")
    if not 0 <= first <= MAX_SEED - len(lengths):
        raise ValueError(f"seed={seed!r}: allowed is 0 to {MAX_SEED - len(lengths)}")
    if fit is not None and fit not in FITS:
        raise ValueError(f"fit={shown(fit)}: allowed are {', '.join(map(repr, FITS))}")
    output, path = output_of(
        _target(save_path, video), replace(options, type="file"), is_image=False, model_fps=model_set.fps
    )
    assert path is not None
    if path.suffix.lower() not in VIDEO_CODECS:
        raise ValueError(f"save_path={shown(str(path))}: allowed are video files, {', '.join(VIDEO_CODECS)}")
    clip = read_clip(video, "video")
    check_no_input(path, () if clip.path is None else (clip.path,))
    size = size_of(clip.size, width, height, model_set, said=fit is not None)
    pieces = tuple(
        Piece(VideoShape.from_request(length + overlap, *size, model_set=model_set), first + index)
        for index, length in enumerate(lengths)
    )
    source = _read(clip, size, fit or "cover", model_set.fps)
    if source.count < overlap * model_set.fps + 1:
        needed = overlap * model_set.fps + 1
        raise ValueError(
            f"video has {source.count} frames at {model_set.fps} a second; overlap={overlap} needs {needed}"
        )
    return Extension(prompts[0], source, pieces, overlap, seconds, path, output, fit)


def check_extension_target(extension: Extension) -> None:
    """Look whether the file can be written by this process.

    Raises:
        ValueError: as `check_target`.
    """
    check_target(extension.path)
    if extension.output.codec is not None:
        check_encoder(extension.output.codec)


def _within(name: str, given: object, most: int) -> int:
    value = as_int(name, given, f"1 to {most}")
    if not 1 <= value <= most:
        raise ValueError(f"{name}={given!r}: allowed is 1 to {most} seconds")
    return value


def _target(save_path: object, video: object) -> str | os.PathLike[str]:
    """Where the result goes: by default beside the video, with `-extended` in its name."""
    if save_path is not None:
        return save_path  # type: ignore[return-value]  # output_of refuses what is no path
    if not isinstance(video, str | os.PathLike):
        raise ValueError("save_path=None: allowed with a video that is a file is a path, or None")
    path = Path(video)
    ending = path.suffix if path.suffix.lower() in VIDEO_CODECS else ".mp4"
    return path.with_name(f"{path.stem}-extended{ending}")


def _read(clip: Clip, size: tuple[int, int], fit: str, fps: int) -> Source:
    """Read a whole source: how long it is, whether it is sound, and what tells it from others."""
    kept: list[Tensor] | None = []
    mark, count = hashlib.sha256(), 0
    with ThreadPoolExecutor(1) as marking:  # hashes while ffmpeg decodes
        for chunk in clip.chunks(size, fit, fps=fps):
            marked = marking.submit(mark.update, chunk.numpy().data)
            count += len(chunk)
            if kept is not None:
                kept.append(chunk)
            if count * chunk[0].nbytes > KEPT_BYTES:
                kept = None
                marked.result()  # else chunks would pile up
    name = None if clip.path is None else clip.path.name
    return Source(clip, *size, fit, fps, count, tuple(kept) if kept else None, Mark(name, mark.hexdigest()))
