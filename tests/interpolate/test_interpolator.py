"""The network with its weights: exactness of what was there, lengths, sizes, ends of scenes."""

import numpy as np
import pytest
import torch

import kandinsky.interpolate
from kandinsky.interpolate.interpolator import WEIGHTS, load_interpolator

MOST_BYTES = 8 * 10**6


def video(count, height=40, width=50, seed=0):
    """Smooth noise that moves a pixel to the right in each frame."""
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    picture = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0]
    moved = torch.stack([picture.roll(shift, dims=2) for shift in range(count)])
    return (moved * 255).byte().permute(0, 2, 3, 1).contiguous().numpy()


def smooth(frames, factor):
    return kandinsky.interpolate.frames(frames, factor, interpolate_with="network", device="cpu")


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 9, 10])
@pytest.mark.parametrize("factor", [2, 3, 4])
def test_frames_that_were_there_are_untouched(count, factor):
    frames = video(count)
    made = smooth(frames, factor)
    assert made.dtype == np.uint8
    assert made.shape == ((count - 1) * factor + 1, 40, 50, 3)
    assert np.array_equal(made[::factor], frames)


def test_chunks_change_nothing():
    frames = video(12)
    whole = smooth(frames, 2)
    assert np.array_equal(np.concatenate((smooth(frames[:6], 2), smooth(frames[5:], 2)[1:])), whole)


def test_a_still_stays_still():
    still = np.repeat(video(1), 3, axis=0)
    assert np.abs(smooth(still, 3).astype(int) - still[0]).max() <= 3


def test_a_scene_ends_at_once():
    """The nearer frame is held, in the middle of a gap the second."""
    frames = np.stack((video(1)[0], video(1, seed=1)[0]))
    for factor, expected in ((2, [0, 1, 1]), (3, [0, 0, 1, 1]), (4, [0, 0, 1, 1, 1])):
        assert np.array_equal(smooth(frames, factor), frames[expected])


def test_the_weights_are_small_and_loaded_once():
    assert WEIGHTS.stat().st_size <= MOST_BYTES
    cpu = torch.device("cpu")
    assert load_interpolator(cpu) is load_interpolator(cpu)


@pytest.mark.gpu
def test_a_gpu_makes_nearly_the_same():
    frames = video(9, 96, 128)
    ours = kandinsky.interpolate.frames(frames, 3, interpolate_with="network", device="cuda")
    assert np.array_equal(ours[::3], frames)
    assert np.abs(ours.astype(int) - smooth(frames, 3)).mean() < 1
