"""How much memory the VAE's encoder needs, which runs when a call is given pictures or a video.

Diffusers' encoder is too slow to import for a plan, so that, other than in `footprint`, this is a formula whose factors
were measured: `python benchmarks/known.py`, two sizes, one, nine and 25 frames (docs/benchmarks.md). Encoding goes by
chunks of eight frames, so that a longer clip needs no more.
"""

from collections.abc import Mapping
from typing import Any

import torch

from kandinsky.memory.footprint import LIBRARY_BYTES, Component
from kandinsky.video_shape import VideoShape

PREFIX = "encoder."
"""Of the encoder's tensors in the VAE's file."""
CHUNK, FRAME = 92.2, 22.1
"""Values for each pixel and channel of the first level that are alive at most: of a clip, and of a single picture."""


def encoder_component(
    config: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], shape: VideoShape, *, dtype: torch.dtype
) -> Component:
    """The encoder, and what encoding a whole request's frames takes besides."""
    weights = sum(torch.Size(size).numel() for name, size in shapes.items() if name.startswith(PREFIX))
    values = (FRAME if shape.is_image else CHUNK) * config["block_out_channels"][0] * shape.width * shape.height
    return Component((weights * dtype.itemsize,), 0, int(values) * dtype.itemsize + LIBRARY_BYTES)
