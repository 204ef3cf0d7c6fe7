"""What comes back of a job: a file, frames or latents, each with what is known of how it was made.

A result is built when everything about it is known, and never changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image
from torch import Tensor

Frames = list[Image.Image] | np.ndarray | Tensor
"""A list of PIL images, or uint8 `[frames, height, width, 3]` as an array or a CPU tensor."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What every job gives.

    Args:
        seed: that makes it again; None for latents that nothing is known about.
        timings: seconds of each stage: `text`, `sample`, `decode` (frames are piped to the encoder meanwhile), `write`
            (what is left for the encoder after the last frame) and `total`; those that there were.
        peak_memory: bytes allocated at most on the CUDA devices in each stage; empty without CUDA.
    """

    seed: int | None
    timings: Mapping[str, float]
    peak_memory: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class GenerationResult(Result):
    """A finished file.

    Args:
        path: of the file, or of the folder of png frames.
        num_frames: in the file.
        fps: of the file; of an image, the model's.
    """

    path: Path
    num_frames: int
    fps: int


@dataclass(frozen=True, kw_only=True)
class FramesResult(Result):
    """Decoded frames, in the form that was asked for."""

    frames: Frames


@dataclass(frozen=True, kw_only=True)
class LatentsResult(Result):
    """Latents `[T, H, W, C]` as sampled, on the DiT's device."""

    latents: Tensor


Many = list[GenerationResult] | list[list[Image.Image]] | list[np.ndarray] | list[Tensor]
"""What a call for several videos returns."""


def returned(results: Sequence[Result], *, one: bool, flat: bool) -> GenerationResult | Frames | Many:
    """What a call returns for its results, of which there is one at least.

    Args:
        one: the first alone, where one video was asked for; else all of them as a list.
        flat: one list of PIL images, those of all results one after the other.
    """
    values = [_value(result) for result in results]
    if flat:
        return [image for images in values if isinstance(images, list) for image in images]
    return values[0] if one else cast("Many", values)


def _value(result: Result) -> GenerationResult | Frames:
    if isinstance(result, FramesResult):
        return result.frames
    if isinstance(result, LatentsResult):
        return result.latents
    assert isinstance(result, GenerationResult)
    return result
