"""The meaning of a flow."""

import torch

from kandinsky.interpolate.warp import warp, warped


def test_a_warp_looks_along_the_flow():
    """(x, y) in pixels, of the place that is looked at; edges are repeated."""
    frames = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    flow = torch.zeros(2, 2, 64, 96)
    flow[:, 0], flow[:, 1] = 2, -1
    moved = warp(frames, flow)
    assert torch.allclose(moved[:, :, 1:, :-2], frames[:, :, :-1, 2:], atol=1e-5)
    assert torch.allclose(moved[:, :, 0, :-2], frames[:, :, 0, 2:], atol=1e-5)
    assert torch.allclose(moved[:, :, 1:, -1], frames[:, :, :-1, -1], atol=1e-5)


def test_each_frame_has_its_own_flow():
    first, second = torch.rand(2, 1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    state = torch.zeros(1, 5, 8, 8)
    state[:, 0], state[:, 3] = 1, -1
    a, b = warped(first, second, state)
    assert torch.allclose(a[..., :-1], first[..., 1:], atol=1e-5)
    assert torch.allclose(b[..., 1:, :], second[..., :-1, :], atol=1e-5)
