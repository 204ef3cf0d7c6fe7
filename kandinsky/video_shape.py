"""Seconds and pixels to frames, latent grid and tokens: the only place with that arithmetic.

Source: the published pipeline; a causal VAE turns n latent frames into 4 (n - 1) + 1 pixel frames.
Requests are checked here, against what the model set allows, before anything is loaded or computed.
"""

import operator
from dataclasses import dataclass

from kandinsky.config import FLASH_512, ModelSet

USUAL_SECONDS = 12


@dataclass(frozen=True)
class VideoShape:
    """One clip's sizes at every stage.

    Args:
        seconds: length; 0 is a single image.
        width, height: pixels.
        latent_frames, latent_height, latent_width: latent grid, `[T, H, W]` of the DiT's input.
        num_frames: pixel frames written.
        fps: pixel frames in a second of the model's time.
    """

    seconds: int
    width: int
    height: int
    latent_frames: int
    latent_height: int
    latent_width: int
    num_frames: int
    fps: int

    @classmethod
    def from_request(
        cls, seconds: int | None, width: int | None, height: int | None, *, model_set: ModelSet = FLASH_512
    ) -> "VideoShape":
        """Check a request and work out its sizes.

        Args:
            seconds: None is 12, or the longest that the model set allows.
            width, height: None is that of the model set's first size.

        Raises:
            ValueError: `time_length`, `width` or `height` is not one that the model set allows.
        """
        usual_width, usual_height = model_set.sizes[0]
        width, height = usual_width if width is None else width, usual_height if height is None else height
        seconds = _check_seconds(min(USUAL_SECONDS, model_set.max_seconds) if seconds is None else seconds, model_set)
        width, height = _check_size(width, height, model_set)
        compression = model_set.temporal_compression
        latent_frames = seconds * model_set.fps // compression + 1
        return cls(
            seconds=seconds,
            width=width,
            height=height,
            latent_frames=latent_frames,
            latent_height=height // model_set.spatial_compression,
            latent_width=width // model_set.spatial_compression,
            num_frames=compression * (latent_frames - 1) + 1,
            fps=model_set.fps,
        )

    @property
    def is_image(self) -> bool:
        return self.seconds == 0

    @property
    def latent_grid(self) -> tuple[int, int, int]:
        return self.latent_frames, self.latent_height, self.latent_width


def as_int(name: str, value: object, allowed: str) -> int:
    """`value` as an int; bool, fractions and text are refused."""
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)  # type: ignore[arg-type]  # TypeError is the answer for what is not an integer
    except TypeError:
        raise ValueError(f"{name}={value!r}: must be a whole number; allowed is {allowed}") from None


def _check_seconds(seconds: object, model_set: ModelSet) -> int:
    allowed = f"0 (an image) to {model_set.max_seconds} seconds"
    value = as_int("time_length", seconds, allowed)
    if not 0 <= value <= model_set.max_seconds:
        raise ValueError(f"time_length={seconds!r}: allowed is {allowed}")
    return value


def _check_size(width: object, height: object, model_set: ModelSet) -> tuple[int, int]:
    listed = ", ".join(f"{w}x{h}" for w, h in model_set.sizes)
    size = (
        as_int("width", width, f"width x height in {listed}"),
        as_int("height", height, f"width x height in {listed}"),
    )
    if size not in model_set.sizes:
        raise ValueError(f"width={width!r}, height={height!r}: allowed width x height: {listed}")
    return size
