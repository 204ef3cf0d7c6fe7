"""Arithmetic of sizes, and what is refused."""

import numpy as np
import pytest

from kandinsky.video_shape import VideoShape


@pytest.mark.parametrize(
    ("seconds", "latent_frames", "num_frames"), [(0, 1, 1), (1, 3, 9), (2, 5, 17), (12, 25, 97), (63, 127, 505)]
)
def test_frames(seconds, latent_frames, num_frames):
    shape = VideoShape.from_request(seconds, 672, 384)
    assert (shape.latent_frames, shape.num_frames) == (latent_frames, num_frames)
    assert shape.latent_grid == (latent_frames, 48, 84)
    assert shape.is_image == (seconds == 0)


def test_numpy_integers_are_integers():
    assert VideoShape.from_request(np.int64(2), np.int32(512), 512).num_frames == 17


@pytest.mark.parametrize("seconds", [-1, 64, 1.5, 2.0, "3", True])
def test_refused_length(seconds):
    with pytest.raises(ValueError, match=r"time_length=.*allowed is 0 \(an image\) to 63 seconds"):
        VideoShape.from_request(seconds, 512, 512)


@pytest.mark.parametrize("size", [(512, 384), (672, 672), (0, 0), (512.0, 512), ("512", 512)])
def test_refused_size(size):
    with pytest.raises(ValueError, match=r"(width|height)=.*512x512, 736x352, 352x736, 672x384"):
        VideoShape.from_request(1, *size)
