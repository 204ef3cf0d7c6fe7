"""Frames as an array, with frames between them."""

import numpy as np
import pytest

import kandinsky.interpolate
from kandinsky.interpolate.minterpolate import minterpolated


def video(count):
    """Noise that moves a pixel to the right in each frame."""
    noise = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    return np.stack([np.roll(noise, shift, axis=1) for shift in range(count)])


@pytest.mark.parametrize(("way", "count"), [(None, 1), (None, 11), ("network", 3)])
def test_frames_that_were_there_are_untouched(way, count):
    frames = video(count)
    asked = {} if way is None else {"interpolate_with": way, "device": "cpu"}
    made = kandinsky.interpolate.frames(frames, 3, **asked)
    assert made.dtype == np.uint8
    assert made.shape == (3 * count - 2, 64, 96, 3)
    assert np.array_equal(made[::3], frames)
    if way is None:
        assert np.array_equal(made, np.concatenate(list(minterpolated([frames], 3))))


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 4, 4, 3)), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4, 4, 3), np.uint8), [1]]
)
def test_what_are_no_frames_is_refused(wrong):
    with pytest.raises(ValueError, match="frames "):
        kandinsky.interpolate.frames(wrong, 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 5}, "interpolate=5: allowed are 2, 3, 4"),
        ({"interpolate_with": "magic"}, "interpolate_with='magic': allowed are 'ffmpeg', 'network'"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        kandinsky.interpolate.frames(video(2), **settings)
