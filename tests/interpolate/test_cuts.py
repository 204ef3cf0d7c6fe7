"""Ends of scenes, and what looks like one."""

import torch

from kandinsky.interpolate.cuts import are_cuts


def picture(seed: int) -> torch.Tensor:
    noise = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.interpolate(noise, (96, 128), mode="bicubic").clamp(0, 1)


def test_another_picture_is_another_scene():
    first, second = picture(0), picture(1)
    assert are_cuts(torch.cat((first, second)), torch.cat((second, first))).tolist() == [True, True]


def test_movement_light_and_stills_are_none():
    first = picture(0)
    moved, lit, dark = first.roll(5, dims=3), (first * 0.5 + 0.5), torch.zeros_like(first)
    assert not are_cuts(first, first).any()
    assert not are_cuts(first, moved).any()
    assert not are_cuts(first, lit).any()
    assert not are_cuts(dark, dark).any()
