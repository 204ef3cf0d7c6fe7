"""Pictures that a call gives: a path, a PIL image, an array or a tensor, to an upright RGB image.

A photograph is turned as its Exif data say. What is transparent is laid over black.
"""

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from kandinsky.errors import shown
from kandinsky.user_files.paths import user_path

ALLOWED = "a path, a PIL image, or an array or tensor [height, width, 1, 3 or 4] of uint8 or of numbers from 0 to 1"
DEPTH = 256
"""Values of a 16-bit picture that are one of an 8-bit one."""


def read_picture(given: object, name: str) -> Image.Image:
    """An RGB image.

    Args:
        given: what `ALLOWED` says.
        name: of the argument, for messages.

    Raises:
        ValueError: it is no picture, or a damaged one.
    """
    if isinstance(given, str | os.PathLike):
        return _opened(given, name)
    if isinstance(given, Image.Image):
        try:
            return _upright(given)
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f"{name}: the image cannot be read: {error}") from error
    if isinstance(given, np.ndarray | torch.Tensor):
        return Image.fromarray(one_picture(given, name))
    raise ValueError(f"{name}={shown(given)}: allowed is {ALLOWED}")


def read_mask(given: object, name: str) -> Image.Image:
    """As `read_picture`, but a grey image; arrays may have no axis of channels, and be bool."""
    if isinstance(given, np.ndarray | torch.Tensor):
        array = _array(given)
        array = array.astype(np.uint8) * 255 if array.dtype == np.bool_ else array
        return Image.fromarray(one_picture(array[..., None] if array.ndim == 2 else array, name)).convert("L")
    return read_picture(given, name).convert("L")


def one_picture(given: Any, name: str) -> np.ndarray:
    """An array or tensor as uint8 `[height, width, 3]`."""
    array = _array(given)
    array = array[0] if array.ndim == 4 and len(array) == 1 else array
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}: allowed is {ALLOWED}")
    return as_rgb(array[None], name)[0]


def as_rgb(array: np.ndarray, name: str) -> np.ndarray:
    """`[F, height, width, 1, 3 or 4]`, or with channels second as torchvision has them, as uint8 of 3 channels."""
    if array.shape[-1] not in (1, 3, 4) and array.shape[1] in (1, 3, 4):
        array = np.moveaxis(array, 1, -1)
    floating = np.issubdtype(array.dtype, np.floating)
    if array.shape[-1] not in (1, 3, 4) or not (floating or array.dtype == np.uint8):
        raise ValueError(f"{name} is {array.dtype} {list(array.shape)}: allowed is {ALLOWED}")
    if floating:
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ValueError(f"{name}: numbers that are not whole must be from 0 to 1")
        array = np.round(array * 255).astype(np.uint8)
    if array.shape[-1] == 4:
        array = np.round(array[..., :3] * (array[..., 3:] / 255.0)).astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:-1], 3)))


def _array(given: Any) -> np.ndarray:
    if isinstance(given, torch.Tensor):
        given = given.detach().cpu()
        return (given.float() if given.is_floating_point() else given).numpy()
    return given


def _opened(given: str | os.PathLike[str], name: str) -> Image.Image:
    path = user_path(given, name)
    try:
        with Image.open(path) as image:
            return _upright(image)
    except FileNotFoundError:
        raise ValueError(f"{name}={shown(str(given))}: no such file") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(f"{name}={shown(str(given))} is no picture that can be read: {error}") from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I;16"):
        turned = Image.fromarray((np.asarray(turned).astype(np.uint32) // DEPTH).astype(np.uint8))
    if not turned.has_transparency_data:
        return turned.convert("RGB")
    clear = turned.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", clear.size, "black"), clear).convert("RGB")


def same_size(pictures: Iterable[Image.Image], name: str) -> None:
    """Refuse pictures of a clip that differ in size.

    Raises:
        ValueError: names two sizes.
    """
    sizes = sorted({picture.size for picture in pictures})
    if len(sizes) > 1:
        raise ValueError(f"{name}: its frames have sizes {sizes[0]} and {sizes[1]}; allowed is one size")
