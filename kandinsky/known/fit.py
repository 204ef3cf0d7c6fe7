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
    scale = (max if fit == "cover" else min)(size[0] / picture.width, size[1] / picture.height)
    inner = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    corner = (inner[0] - size[0]) // 2, (inner[1] - size[1]) // 2
    resized = picture.resize(inner, Image.Resampling.LANCZOS)
    return resized.crop((*corner, corner[0] + size[0], corner[1] + size[1]))  # outside of the picture it is black


def as_tensor(picture: Image.Image) -> Tensor:
    """An RGB picture as uint8 `[height, width, 3]`, a grey one as `[height, width]`."""
    return torch.from_numpy(np.array(picture))
