"""How long a request will take on a device that is not a GPU of CUDA: said before it starts, and after the first step.

Before: operations of all steps over the rate of one matrix product, measured here. After the first step: that step.
Decoding comes on top and is not estimated. What is short is not worth a word.
"""

import math
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from kandinsky.config import DiTConfig
from kandinsky.video_shape import VideoShape

if TYPE_CHECKING:
    from kandinsky.model.dit import DiT

SHORT_SECONDS = 60
PROBE_ROWS = 512
"""Of the matrix product that is timed."""
PROBES = 4
"""Products that are timed, of which the quickest counts: the first one is not warm, others may have been held up."""
Say = Callable[[str], object]


def operations_of(config: DiTConfig, shape: VideoShape, *, text_tokens: int, steps: int) -> float:
    """Floating-point operations of sampling one video, a multiplication and an addition counted as two.

    Args:
        config: sizes of the DiT.
        shape: of the video.
        text_tokens: in a prompt.
        steps: of the sampler.
    """
    parts = zip(shape.latent_grid, config.patch_size, strict=True)
    tokens = math.prod(size // patch for size, patch in parts) + text_tokens
    linears = 2 * tokens * (4 * config.model_dim**2 + 2 * config.model_dim * config.ff_dim)
    attention = 4 * tokens**2 * config.model_dim  # of every second block; the others look at groups of tokens
    return steps * config.num_blocks * (2 * linears + attention)


def rate_of(dit: "DiT") -> float:
    """Operations a second of a matrix product on the DiT's device and in its dtype."""
    rows = torch.randn(PROBE_ROWS, dit.config.model_dim).to(dit.device, dit.dtype)
    columns = torch.randn(dit.config.model_dim, dit.config.ff_dim).to(dit.device, dit.dtype)
    times = []
    for _ in range(PROBES):
        started = time.perf_counter()
        (rows @ columns)[0, 0].item()  # which waits for it
        times.append(time.perf_counter() - started)
    return 2 * PROBE_ROWS * dit.config.model_dim * dit.config.ff_dim / min(times)


def in_words(seconds: float) -> str:
    """As people say it: "50 s", "12 min", "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


class Forecast:
    """Says what a request will take; a call's `on_step`.

    Args:
        dit: that will sample.
        shape: of the video.
        text_tokens: in a prompt.
        steps: of the sampler.
        rate: operations a second; None measures it.
        say: where to; None is stderr.
    """

    def __init__(
        self,
        dit: "DiT",
        shape: VideoShape,
        *,
        text_tokens: int,
        steps: int,
        rate: float | None = None,
        say: Say | None = None,
    ):
        self._say: Say = say or (lambda line: print(line, file=sys.stderr, flush=True))
        seconds = operations_of(dit.config, shape, text_tokens=text_tokens, steps=steps) / (rate or rate_of(dit))
        if seconds >= SHORT_SECONDS:
            size = f"{shape.width}x{shape.height}, {shape.seconds} s"
            shorter = "" if shape.is_image else "; --time-length 0 makes an image, in a fraction of the time"
            self._say(
                f"{size} on {dit.device.type}: about {in_words(seconds)} to sample, and the decoding after it{shorter}"
            )
        self._started = time.perf_counter()

    def __call__(self, step: int, total: int, _latents: Tensor) -> None:
        """After the first step: what is left, as that one took."""
        if step != 1 or total == 1:
            return
        seconds = time.perf_counter() - self._started
        if seconds * total >= SHORT_SECONDS:
            left = in_words(seconds * (total - 1))
            self._say(f"the first of {total} steps took {in_words(seconds)}: about {left} more to sample")
