"""Warps and the network: what it begins with, and that flow has the meaning that it should."""

import pytest
import torch

from kandinsky.interpolate.network import MULTIPLE, FlowNetwork


@pytest.fixture
def frames():
    return torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)).unbind()


@pytest.fixture
def picture():
    noise = torch.rand(1, 3, 8, 20, generator=torch.Generator().manual_seed(0))
    return torch.nn.functional.interpolate(noise, scale_factor=8, mode="bicubic").clamp(0, 1)


@pytest.fixture
def still(picture):
    return picture[..., :96]


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_an_untrained_network_averages_what_is_still(still, t):
    """Also where the light changes."""
    made = FlowNetwork()(still, still + 0.1, torch.full((1,), t))
    assert torch.allclose(made.frame, still + 0.1 * t, atol=0.01)
    assert [tuple(state.shape[2:]) for state in made.states] == [(8, 12), (16, 24), (32, 48), (64, 96)]


def test_an_untrained_network_follows_what_moves(picture):
    """6 pixels to the right: at 1/3, what is seen was 2 pixels to the left and will be 4 to the right."""
    first, second = picture[..., 16:144], picture[..., 10:138]
    state = FlowNetwork()(first, second, torch.full((1,), 1 / 3)).states[-1]
    flow = state[0, :4, 16:48, 32:96].mean((1, 2))
    assert torch.allclose(flow, torch.tensor([-2.0, 0, 4.0, 0]), atol=0.5)


def test_every_weight_is_used(frames):
    network = FlowNetwork()
    for value in network.parameters():  # zero weights would hide those before them
        torch.nn.init.normal_(value, std=0.05)
    network(*frames, torch.full((2,), 0.5)).frame.square().mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in network.parameters())


def test_the_smallest_picture():
    small = torch.rand(1, 3, MULTIPLE, MULTIPLE)
    assert FlowNetwork()(small, small, torch.full((1,), 0.5)).frame.shape == small.shape
