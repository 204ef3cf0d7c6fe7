"""What a call gives besides its text: its arguments, and the size, length and pixels that they mean.

Everything is read here, before a model runs: a picture or a video that cannot be used is a ValueError. The size, if
nobody says it, is that of the model set's whose proportions are nearest to those of what is given; another one is only
taken with a `fit`, which says how the picture gets there.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from kandinsky.config import ModelSet
from kandinsky.errors import shown
from kandinsky.known.fit import FITS, Size, as_tensor, fitted, nearest_size
from kandinsky.known.given import STRENGTHS, Given, Mark
from kandinsky.output.paths import IMAGE_ENDINGS
from kandinsky.output.read_clip import Clip, read_clip
from kandinsky.output.read_picture import read_mask, read_picture
from kandinsky.user_files.paths import user_path
from kandinsky.video_shape import VideoShape

WHITE = 128
"""From which a mask's pixel is white."""
PROPORTIONS = 0.02
"""By how much a mask's may differ from those of what it is for."""
FILES = ("image", "last_image", "video", "mask")


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """As the caller gave them; None where nothing was said.

    Args:
        image: the first frame.
        last_image: what the last latent frame, the last four frames, shows.
        video: what is changed: with `strength`, with `mask`, or with both.
        mask: what is made anew of `video` or `image` (white), all else of which stays; a picture, or a clip as long as
            the video.
        strength: one of `known.given.STRENGTHS`.
        fit: one of `known.fit.FITS`.
    """

    image: object = None
    last_image: object = None
    video: object = None
    mask: object = None
    strength: object = None
    fit: object = None

    @property
    def named(self) -> Mapping[str, object]:
        """Those that were given."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        return {name: value for name, value in every.items() if value is not None}

    @property
    def files(self) -> tuple[Path, ...]:
        """Those that are files."""
        given = {name: getattr(self, name) for name in FILES}
        return tuple(user_path(each, name) for name, each in given.items() if isinstance(each, str | os.PathLike))


NO_INPUTS = Inputs()


def check_no_input(target: Path, files: Sequence[Path]) -> None:
    """Refuse to write a result over what it is made from.

    Raises:
        ValueError: names the file.
    """
    if target.exists() and any(file.exists() and target.samefile(file) for file in files):
        raise ValueError(f"save_path={shown(str(target))}: it is what the call is given; name another file")


@dataclass(frozen=True)
class _Read:
    """What was given, opened; nothing is fitted yet."""

    pictures: Mapping[str, Image.Image]
    video: Clip | None
    mask: Image.Image | Clip | None
    fit: str


def shape_and_given(
    inputs: Inputs, time_length: int | None, width: int | None, height: int | None, *, model_set: ModelSet
) -> tuple[VideoShape, Given | None]:
    """Size and length of a call, and what is known of it.

    Args:
        time_length, width, height: of the call; None is chosen, by what is given if there is something.

    Raises:
        ValueError: an argument is not what it may be, or does not go with the others.
    """
    if not inputs.named:
        return VideoShape.from_request(time_length, width, height, model_set=model_set), None
    _check_together(inputs, time_length)
    strength, read = _strength_of(inputs), _read(inputs)
    own = read.video.size if read.video is not None else next(iter(read.pictures.values())).size
    width, height = size_of(own, width, height, model_set, said=inputs.fit is not None)
    if read.video is None:
        shape = VideoShape.from_request(time_length, width, height, model_set=model_set)
        frames = None
    else:
        longest = VideoShape.from_request(
            model_set.max_seconds if time_length is None else time_length, width, height, model_set=model_set
        )
        frames = read.video.frames((width, height), read.fit, fps=model_set.fps, most=longest.num_frames + 1)
        shape = _length_of(len(frames), longest, time_length, model_set)
    return shape, _given(inputs, read, shape, frames, strength)


def _check_together(inputs: Inputs, time_length: object) -> None:
    """Refuse arguments that do not go together.

    Raises:
        ValueError: names them.
    """
    there = set(inputs.named)
    if inputs.mask is not None and not there & {"image", "video"}:
        raise ValueError(f"mask={shown(inputs.mask)}: it is for image or video, and there is none")
    if inputs.fit is not None and not there & set(FILES):
        raise ValueError(f"fit={shown(inputs.fit)}: it is for pictures and videos, and there is none")
    if inputs.fit is not None and inputs.fit not in FITS:
        raise ValueError(f"fit={shown(inputs.fit)}: allowed are {', '.join(map(repr, FITS))}")
    if inputs.video is not None and there & {"image", "last_image"}:
        raise ValueError("video with image or last_image: allowed is one of them")
    if inputs.video is not None and not there & {"strength", "mask"}:
        allowed = ", ".join(map(str, STRENGTHS))
        raise ValueError(f"video needs strength ({allowed}), or mask, which says what is made anew")
    if time_length == 0:
        _check_for_image(inputs)


def _check_for_image(inputs: Inputs) -> None:
    for name, why in (("last_image", "has no last frame"), ("video", "is no video")):
        if getattr(inputs, name) is not None:
            raise ValueError(f"{name}={shown(getattr(inputs, name))}: time_length=0 makes an image, which {why}")
    if inputs.mask is None and inputs.image is not None:
        raise ValueError("image with time_length=0 needs mask: else all of the picture is known")


def _strength_of(inputs: Inputs) -> float:
    given = inputs.strength
    if given is not None and inputs.video is None:
        raise ValueError(f"strength={shown(given)}: it is for video, and there is none")
    if given is None:
        return 1.0
    number = given if isinstance(given, int | float | np.number) and not isinstance(given, bool) else None
    if number is None or float(number) not in STRENGTHS:
        raise ValueError(f"strength={shown(given)}: allowed are {', '.join(map(str, STRENGTHS))}")
    return float(number)


def _read(inputs: Inputs) -> _Read:
    pictures = {
        name: read_picture(getattr(inputs, name), name)
        for name in ("image", "last_image")
        if getattr(inputs, name) is not None
    }
    video = None if inputs.video is None else read_clip(inputs.video, "video")
    mask = None if inputs.mask is None else _mask_of(inputs.mask)
    if mask is not None:
        _check_mask_size(mask.size, video.size if video is not None else pictures["image"].size)
    return _Read(MappingProxyType(pictures), video, mask, str(inputs.fit or "cover"))


def _mask_of(given: Any) -> Image.Image | Clip:
    """A grey picture, or a clip of them."""
    if isinstance(given, str | os.PathLike):
        return (read_mask if Path(given).suffix.lower() in IMAGE_ENDINGS else _grey_clip)(given, "mask")
    axes = getattr(given, "ndim", 0)
    several = axes == 4 or (axes == 3 and isinstance(given, np.ndarray | Tensor) and given.shape[-1] not in (1, 3, 4))
    if isinstance(given, list | tuple) or (several and len(given) > 1):
        return _grey_clip(given, "mask")
    return read_mask(given[0] if several else given, "mask")


def _grey_clip(given: object, name: str) -> Clip:
    return read_clip(given, name, grey=True)


def _check_mask_size(size: Size, own: Size) -> None:
    if abs(size[0] * own[1] / (size[1] * own[0]) - 1) > PROPORTIONS:
        raise ValueError(
            f"mask is {size[0]}x{size[1]}: allowed are the proportions of what it is for, {own[0]}x{own[1]}"
        )


def size_of(own: Size, width: Any, height: Any, model_set: ModelSet, *, said: bool) -> Size:
    """The size of a call: the nearest to `own`, unless another one was asked for and `said` how to get there."""
    chosen = nearest_size(own, model_set.sizes)
    if width is None and height is None:
        return chosen
    asked = VideoShape.from_request(
        0, chosen[0] if width is None else width, chosen[1] if height is None else height, model_set=model_set
    )
    if (asked.width, asked.height) != chosen and not said:
        raise ValueError(
            f"width={asked.width}, height={asked.height}: what is given is {own[0]}x{own[1]}, which goes with "
            f"{chosen[0]}x{chosen[1]}; for another size say how it gets there: fit={', '.join(map(repr, FITS))}"
        )
    return asked.width, asked.height


def _length_of(frames: int, longest: VideoShape, asked: int | None, model_set: ModelSet) -> VideoShape:
    """The shape of a video with so many frames, of which at most `longest` were read."""
    seconds = (frames - 1) // model_set.fps
    if seconds < 1 or (asked is not None and seconds < longest.seconds):
        needed = f"time_length={asked} needs {longest.num_frames}" if asked else f"a second needs {model_set.fps + 1}"
        raise ValueError(f"video has {frames} frames at {model_set.fps} a second; {needed}")
    return VideoShape.from_request(seconds, longest.width, longest.height, model_set=model_set)


def _given(inputs: Inputs, read: _Read, shape: VideoShape, frames: Tensor | None, strength: float) -> Given:
    size = shape.width, shape.height
    pixels = {name: as_tensor(fitted(picture, size, read.fit)) for name, picture in read.pictures.items()}
    if read.mask is not None:
        pixels["mask"] = _anew(read, shape, 1 if frames is None else len(frames))
    if frames is not None:
        pixels["video"] = frames[: shape.num_frames]
    return Given(
        head=pixels["image"][None] if "image" in pixels else None,
        last=pixels.get("last_image"),
        video=pixels.get("video"),
        anew=pixels.get("mask"),
        strength=strength,
        marks={name: mark_of(getattr(inputs, name), values) for name, values in pixels.items()},
        fit=None if inputs.fit is None else read.fit,
        files=inputs.files,
    )


def _anew(read: _Read, shape: VideoShape, count: int) -> Tensor:
    """Bool `[1 or F, height, width]`, what is white in the mask of something that `count` frames were read of."""
    size = shape.width, shape.height
    if isinstance(read.mask, Image.Image):
        grey = as_tensor(_like(read.mask, read, size))[None]
    else:
        assert read.mask is not None
        grey = read.mask.frames(size, read.fit, fps=shape.fps, most=shape.num_frames + 1, grey=True)
        if len(grey) != min(count, shape.num_frames + 1):
            raise ValueError(f"mask has {len(grey)} frames or more: what it is for has {count}")
    anew = grey[: shape.num_frames] >= WHITE
    if not anew.any():
        raise ValueError("mask has nothing white: nothing would be made anew")
    return anew


def _like(mask: Image.Image, read: _Read, size: Size) -> Image.Image:
    """A mask fitted as what it is for is."""
    own = read.video.size if read.video is not None else read.pictures["image"].size
    same = mask if mask.size == own else mask.resize(own, Image.Resampling.BILINEAR)
    return fitted(same, size, read.fit)


def mark_of(given: object, pixels: Tensor) -> Mark:
    """What a record says of an input, whose pixels as they are used these are."""
    found = hashlib.sha256(str(list(pixels.shape)).encode())
    found.update(pixels.contiguous().view(torch.uint8).numpy().tobytes())
    return Mark(Path(given).name if isinstance(given, str | os.PathLike) else None, found.hexdigest())
