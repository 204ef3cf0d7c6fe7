"""What the search finds in pictures whose movement is known."""

import pytest
import torch
import torch.nn.functional as F

from kandinsky.interpolate.matching import CELL, PLACES, REACH, SIDE, best_shift, differences_of, matched


@pytest.fixture
def picture():
    noise = torch.rand(1, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    return F.interpolate(noise, scale_factor=2, mode="bilinear")


def moved(picture, x, y):
    """The content of the picture, `x` pixels to the right and `y` down."""
    return torch.roll(picture, (y, x), dims=(2, 3))


@pytest.mark.parametrize(("x", "y"), [(0, 0), (3, 0), (0, -3), (2, 1), (-1, 2)])
@pytest.mark.parametrize("t", [0.25, 0.5])
def test_a_movement_is_found_and_shared_out(picture, x, y, t):
    """What is at p in between was at p - t v and will be at p + (1 - t) v."""
    state, found = matched(picture, moved(picture, x, y), torch.zeros(1, 5, 64, 80), torch.tensor([[[[t]]]]))
    flow = state[0, :, 16:48, 16:64].mean((1, 2))
    wanted = torch.tensor([-t * x, -t * y, (1 - t) * x, (1 - t) * y, 0])
    assert torch.allclose(flow, wanted, atol=0.15)
    assert found.shape == (1, PLACES + 2, 64 // CELL, 80 // CELL)


def test_it_goes_on_from_the_flow_that_is_known(picture):
    known = torch.zeros(1, 5, 64, 80)
    known[:, 0], known[:, 2], known[:, 4] = -4, 4, 7
    state, _ = matched(picture, moved(picture, 10, 0), known, torch.tensor([[[[0.5]]]]))
    flow = state[0, :, 20:44, 28:52].mean((1, 2))
    assert torch.allclose(flow, torch.tensor([-5.0, 0, 5.0, 0, 7]), atol=0.15)


def test_what_is_flat_stays():
    flat = torch.full((1, 3, 32, 32), 0.5)
    state, _ = matched(flat, flat, torch.zeros(1, 5, 32, 32), torch.tensor([[[[0.5]]]]))
    assert torch.allclose(state, torch.zeros_like(state), atol=1e-6)


def test_differences_are_means_of_blocks(picture):
    """Of the block of 12 pixels around a cell, shifted by (x, y)."""
    grey, other = picture[:, :1], picture[:, 1:2]
    found = differences_of(grey, other)
    x, y = 2, -1
    block = grey[0, 0, 12:24, 16:28] - other[0, 0, 12 + y : 24 + y, 16 + x : 28 + x]
    assert torch.allclose(found[0, (y + REACH) * SIDE + x + REACH, 4, 5], block.abs().mean(), atol=1e-6)


def test_the_best_shift_is_read_as_x_and_y():
    differences = torch.full((1, PLACES, 4, 4), 0.5)
    differences[:, (1 + REACH) * SIDE - 2 + REACH] = 0
    assert torch.allclose(best_shift(differences)[0, :, 2, 2], torch.tensor([-2.0, 1.0]), atol=1e-4)


def test_no_gradient_but_that_of_the_flow(picture):
    state = torch.zeros(1, 5, 64, 80, requires_grad=True)
    corrected, found = matched(picture, moved(picture, 1, 0), state, torch.tensor([[[[0.5]]]]))
    corrected.sum().backward()
    assert state.grad is not None and torch.equal(state.grad, torch.ones_like(state))
    assert not found.requires_grad
