"""Pictures of any size to one of the model set's."""

import numpy as np
import pytest
from PIL import Image

from kandinsky.known.fit import FITS, as_tensor, fitted, nearest_size


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(1, 1), (64, 64), (7, 999), (9999, 1), (640, 31), (65, 63)])
def test_every_picture_gets_the_size(fit, size):
    assert fitted(Image.new("RGB", size, "white"), (96, 64), fit).size == (96, 64)


def test_the_right_size_is_not_touched():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    assert (as_tensor(fitted(Image.fromarray(pixels), (96, 64), "cover")).numpy() == pixels).all()


def test_what_each_fit_does_with_a_wide_picture():
    picture = Image.new("RGB", (400, 100), "white")
    picture.paste("red", (0, 0, 100, 100))
    cover, contain, stretch = (as_tensor(fitted(picture, (64, 64), fit)) for fit in FITS)
    assert (cover == 255).all()  # the red end is cut off
    assert (contain[:20] == 0).all() and (contain[28:36, 30:] == 255).all()
    assert stretch[32, 5].tolist() == [255, 0, 0] and stretch[32, 50].tolist() == [255] * 3


def test_the_nearest_proportions():
    sizes = ((512, 512), (736, 352), (672, 384), (384, 672))
    assert nearest_size((1920, 1080), sizes) == (672, 384)
    assert nearest_size((1080, 1920), sizes) == (384, 672)
    assert nearest_size((10, 10), sizes) == (512, 512)
