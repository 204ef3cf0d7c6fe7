"""Pictures to a size: cover it and be cropped, be contained in it with black bars, or be stretched.

Pictures that have the size already stay bit for bit what they are.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FITS = ("cover", "contain", "stretch")
Size = tuple[int, int]
"""(width, height) in pixels."""


def nearest_size(size: Size, sizes: Sequence[Size]) -> Size:
    """Of some sizes the one whose proportions are nearest to those of `size`."""
    return min(sizes, key=lambda each: abs(math.log(each[0] * size[1] / (each[1] * size[0]))))


def fitted(picture: Image.Image, size: Size, fit: str) -> Image.Image:
    """A picture of any mode at a size; `fit` is one of `FITS`."""
    if picture.size == size:
        return picture
    if fit == "stretch":
        return picture.resize(size, Image.Resampling.LANCZOS)
    if fit == "cover":  # what is cropped is left out before: of a very long picture it would be very much
        scale = max(size[0] / picture.width, size[1] / picture.height)
        seen = size[0] / scale, size[1] / scale
        corner = (picture.width - seen[0]) / 2, (picture.height - seen[1]) / 2
        box = (*corner, corner[0] + seen[0], corner[1] + seen[1])
        return picture.resize(size, Image.Resampling.LANCZOS, box=box)
    scale = min(size[0] / picture.width, size[1] / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    whole = Image.new(picture.mode, size)  # black
    whole.paste(picture.resize(inner, Image.Resampling.LANCZOS), ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
    return whole


def as_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as uint8 `[height, width, 3]`, a grey one as `[height, width]`."""
    return torch.from_numpy(np.array(picture))
