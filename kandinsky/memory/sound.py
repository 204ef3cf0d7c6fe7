"""What V2A takes of a GPU, and whether it fits there: after text to video has left it, or beside it."""

from collections.abc import Mapping

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.errors import NothingFits
from kandinsky.memory.footprint import LIBRARY_BYTES
from kandinsky.memory.planner import MARGIN

WORKING_BYTES = 3 * 10**9
"""Beside the weights, for 12 s of sound: most of it the decoder's pictures of 512 x 1184 (docs/sound.md)."""

ENCODER_BYTES = 25 * 10**9
"""Of the published encoder in bfloat16: 12 billion parameters, as its authors count them."""


def sound_bytes(checkpoints: Mapping[str, Checkpoint], dtypes: Mapping[str, torch.dtype]) -> int:
    """Bytes on a GPU at most; headers are read, weights are not.

    Args:
        checkpoints: of the components there, by name.
        dtypes: that each is computed with.
    """
    weights = sum(
        torch.Size(shape).numel() * dtypes[name].itemsize
        for name, checkpoint in checkpoints.items()
        for shape in checkpoint.shapes.values()
    )
    return weights + WORKING_BYTES + LIBRARY_BYTES


def fits(needed: int, free: int) -> bool:
    """Whether a GPU with `free` bytes has room for `needed` bytes."""
    return needed <= free * (1 - MARGIN)


def check_sound_fits(needed: int, free: int) -> None:
    """Refuse a GPU without room, before anything is loaded.

    Raises:
        NothingFits: says how much is missing.
    """
    if not fits(needed, free):
        raise NothingFits(
            f"the sound model needs {needed / 1e9:.1f} GB of the GPU and {free / 1e9:.1f} GB are free ({MARGIN:.0%} of "
            "it are kept for fragments). What would fit: other models that this program holds leave first "
            "(`del pipe`), or device_map='cpu'"
        )
