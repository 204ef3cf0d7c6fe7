"""Triplets of videos: which frames, at which time."""

import pytest
import torch

from kandinsky.training.motion.triplets import Clips


def drawn(count, **changes):
    """Of a video whose frames tell their number, brighter in each."""
    video = (torch.arange(12, dtype=torch.uint8) * 20)[:, None, None, None].expand(-1, 3, 48, 64)
    settings = {"videos": [video], "generator": torch.Generator().manual_seed(0), "size": 32, **changes}
    return Clips(**settings).draw(count)


def test_the_middle_frame_is_at_its_time():
    made = drawn(40)
    first, middle, second = (frames.mean((1, 2, 3)) for frames in (made.first, made.middle, made.second))
    assert torch.allclose(middle, first + made.t * (second - first), atol=1e-5)
    assert {round(float(t), 3) for t in made.t} == {0.333, 0.5, 0.667}
    assert (second > first).any()
    assert (second < first).any()
    assert made.first.shape == (40, 3, 32, 32)


@pytest.mark.parametrize("shape", [(3, 3, 64, 64), (8, 3, 16, 64)])
def test_videos_that_are_too_small(shape):
    with pytest.raises(ValueError, match="allowed are 4 frames and more, of 32 pixels"):
        drawn(1, videos=[torch.zeros(shape, dtype=torch.uint8)])
