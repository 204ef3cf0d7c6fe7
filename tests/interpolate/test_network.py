"""Warps and the network: what it begins with, and that flow has the meaning that it should."""

import pytest
import torch

from kandinsky.interpolate.network import MULTIPLE, FlowNetwork, warp


@pytest.fixture
def frames():
    return torch.rand(2, 2, 3, 64, 96, generator=torch.Generator().manual_seed(0)).unbind()


def test_a_warp_looks_along_the_flow(frames):
    """(x, y) in pixels, of the place that is looked at; edges are repeated."""
    flow = torch.zeros(2, 2, 64, 96)
    flow[:, 0], flow[:, 1] = 2, -1
    moved = warp(frames[0], flow)
    assert torch.allclose(moved[:, :, 1:, :-2], frames[0][:, :, :-1, 2:], atol=1e-5)
    assert torch.allclose(moved[:, :, 0, :-2], frames[0][:, :, 0, 2:], atol=1e-5)
    assert torch.allclose(moved[:, :, 1:, -1], frames[0][:, :, :-1, -1], atol=1e-5)


@pytest.mark.parametrize("t", [0.25, 0.5, 0.75])
def test_an_untrained_network_averages(frames, t):
    made = FlowNetwork()(*frames, torch.full((2,), t))
    assert torch.allclose(made.frame, (1 - t) * frames[0] + t * frames[1], atol=1e-5)
    assert [tuple(state.shape[2:]) for state in made.states] == [(8, 12), (16, 24), (32, 48), (64, 96)]


def test_every_weight_is_used(frames):
    network = FlowNetwork()
    for value in network.parameters():  # zero weights would hide those before them
        torch.nn.init.normal_(value, std=0.05)
    network(*frames, torch.full((2,), 0.5)).frame.square().mean().backward()
    assert all(value.grad is not None and value.grad.abs().max() > 0 for value in network.parameters())


def test_the_smallest_picture():
    small = torch.rand(1, 3, MULTIPLE, MULTIPLE)
    assert FlowNetwork()(small, small, torch.full((1,), 0.5)).frame.shape == small.shape
