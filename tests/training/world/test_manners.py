"""Manners of putting in what is known that no call takes. No model runs."""

import torch

from kandinsky.known.latents import Known
from kandinsky.training.world.manners import MANNERS, drawn_to, sample_repeated, soften


def test_what_a_call_does_is_one_of_them():
    usual = known()
    assert (usual.noised, usual.toned) in MANNERS.values()


def known():
    mask = torch.zeros(4, 2, 2, dtype=torch.bool)
    mask[0] = True
    return Known(torch.full((4, 2, 2, 16), 3.0), mask)


def test_every_step_but_the_first_is_repeated():
    steps = []

    def velocity(x, index):
        steps.append(index)
        return x

    latents = sample_repeated(velocity, known(), (0.0, 0.1, 0.3, 0.6), 1)
    assert steps == [0, 1, 1, 2, 2, 3, 3]
    assert (latents[0] == 3).all()


def test_neighbours_are_drawn_less_the_farther_they_are():
    drawn = drawn_to(known(), torch.zeros(4, 2, 2, 16, dtype=torch.float64))
    assert drawn[:, 0, 0, 0].tolist() == [3, 1.5, 0.75, 0.375]
    assert soften(known(), 1, drawn) is None
    assert soften(known(), 0, torch.zeros_like(drawn)).equal(drawn)
