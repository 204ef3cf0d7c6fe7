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


def test_what_moves_is_drawn_more_often():
    """Half of the draws are alike for all videos, the others go by movement: here nine of ten to the second one."""
    still = torch.full((12, 3, 48, 64), 100, dtype=torch.uint8)
    slow, fast = still.clone(), still.clone()
    slow[1::2], fast[1::2] = 110, 190
    clips = Clips([slow, fast], torch.Generator().manual_seed(0), size=32)
    assert torch.allclose(clips.chances, torch.tensor([0.5 / 2 + 0.5 / 10, 0.5 / 2 + 4.5 / 10]))
    assert torch.allclose(Clips([still, still], torch.Generator(), size=32).chances, torch.tensor([0.25, 0.25]))
