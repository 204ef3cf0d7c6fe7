"""Pixels that a call gives besides its text, read and fitted to its size: what a `Request` carries.

Nothing is encoded here: that needs a VAE, and happens once on the rank that has it (see `known.latents`).

Legend: F pixel frames; pictures are uint8 [height, width, 3], clips uint8 [F, height, width, 3] at the model's rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from kandinsky.video_shape import VideoShape

STRENGTHS = (1.0, 0.75, 0.5, 0.25)
"""Of a video that is changed: the share of the four steps that are run; the others are left out at the beginning."""


@dataclass(frozen=True)
class Mark:
    """What a record says of an input.

    Args:
        name: of its file, without its folder; None if it came as pixels.
        sha256: of the pixels as they are used, so that the same picture in another kind of file is the same.
    """

    name: str | None
    sha256: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What is given; None where nothing is.

    Args:
        head: clip of 1 + 4 k frames that the result begins with; a picture is a head of one frame.
        last: picture that the last latent frame shows.
        video: clip of all frames, which the run begins with at the timestep that `strength` chooses.
        anew: bool `[F, height, width]`, what is to be made anew of `head` or of `video`, all else of which stays; one
            frame, or as many as they have.
        strength: one of `STRENGTHS`; for `video`.
        marks: of the inputs, by the names that the call has for them.
        fit: how they were fitted, as the call says it.
        files: those that were read.
    """

    head: Tensor | None = None
    last: Tensor | None = None
    video: Tensor | None = None
    anew: Tensor | None = None
    strength: float = 1.0
    marks: Mapping[str, Mark] = field(default_factory=dict)
    fit: str | None = None
    files: tuple[Path, ...] = ()

    def __post_init__(self) -> None:
        if (self.head is None) == (self.video is None) and self.last is None:
            raise ValueError("given is a head, a last picture, or a video")

    @staticmethod
    def elsewhere() -> "Given":
        """For ranks that do not encode: it tells them that something is known."""
        return _NOTHING_HERE


class _Elsewhere(Given):
    """A `Given` whose pixels another rank has."""

    def __post_init__(self) -> None:
        """Nothing to check."""


_NOTHING_HERE = _Elsewhere()


def first_step(strength: float, steps: int) -> int:
    """Index of the timestep that a strength of `STRENGTHS` begins with, of a schedule of so many steps."""
    return min(steps - 1, round((1 - strength) * steps))


def latent_frames_of(frames: int, shape: VideoShape) -> int:
    """Latent frames that so many pixel frames become, 1 + 4 k to 1 + k."""
    step = (shape.num_frames - 1) // max(1, shape.latent_frames - 1)
    return (frames - 1) // step + 1 if step else 1
