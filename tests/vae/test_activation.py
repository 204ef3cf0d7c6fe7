"""How an activation lies in memory: what is stored is what the upsampled picture shows."""

import pytest
import torch

from kandinsky.vae.activation import Activation, Time, dense, doubled, latent_frames, split_source


def quarters_of(x):
    """[T, H, W, C] stored as a convolution of each parity writes it; what it writes too much is not a number."""
    frames, height, width, channels = x.shape
    stored = x.new_full((4, frames, height // 2 + 1, width // 2 + 1, channels), torch.nan)
    for quarter in range(4):
        down, right = divmod(quarter, 2)
        stored[quarter, :, down : down + height // 2, right : right + width // 2] = x[:, down::2, right::2]
    return stored


def numbered(frames, height=4, width=6, channels=2):
    return torch.arange(frames * height * width * channels, dtype=torch.float32).view(frames, height, width, channels)


def test_quarters():
    x = numbered(3)
    found = Activation(quarters_of(x), 3, quarters=True)
    assert torch.equal(dense(found), x)
    assert (found.size, found.stored_frames, found.channels, found.pixels) == ((4, 6), 3, 2, 3 * 24)


@pytest.mark.parametrize(("frames", "order"), [(1, [0]), (4, [0, 0, 1, 1]), (5, [0, 1, 1, 2, 2])])
def test_paired_frames_are_shown_twice_but_for_an_odd_first_one(frames, order):
    x = numbered(max(order) + 1)
    paired = Activation(x, frames, Time.PAIRED)
    assert torch.equal(doubled(paired), x[order])
    assert torch.equal(dense(paired), x)
    assert paired.first == frames % 2
    assert 2 * paired.pixels == frames * 24


@pytest.mark.parametrize(
    ("frames", "stored"),
    [(1, [0]), (2, [0, 1]), (4, [0, 2, 1, 3]), (5, [0, 1, 3, 2, 4]), (8, [0, 2, 4, 6, 1, 3, 5, 7])],
)
def test_even_results_are_stored_before_odd_ones(frames, stored):
    """Counted from the first doubled frame; a single frame before it is an even result."""
    x = numbered(frames)
    split = Activation(x[stored], frames, Time.SPLIT)
    assert torch.equal(dense(split), x)
    assert torch.equal(doubled(split), x)
    assert split.pixels == frames * 24
    half = (frames + frames % 2) // 2
    assert [stored.index(t) for t in range(frames)] == [split_source(t, frames % 2, half) for t in range(frames)]


@pytest.mark.parametrize(
    ("frames", "latents", "shown"),
    [(1, 1, [0]), (2, 2, [0, 1]), (4, 2, [0, 0, 1, 1]), (5, 3, [0, 1, 1, 2, 2]), (9, 3, [0, 1, 1, 1, 1, 2, 2, 2, 2])],
)
def test_latent_frame_of_a_frame(frames, latents, shown):
    first, repeat = latent_frames(frames, latents)
    assert [0 if t < first else first + (t - first) // repeat for t in range(frames)] == shown
