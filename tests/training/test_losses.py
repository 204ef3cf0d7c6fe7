"""Losses of the adversarial distillation, by hand."""

import pytest
import torch

from kandinsky.training.losses import approximate_r1, discriminator_loss, generator_loss, mean_score

REAL, FAKE = [torch.tensor([[2.0, 0.0]])], [torch.tensor([[-3.0, 0.0]])]


def test_hinge():
    assert discriminator_loss(REAL, FAKE) == 0.5 + 0.5
    assert generator_loss(FAKE) == 1.5


def test_every_head_counts_the_same():
    """However many tokens it scores."""
    assert mean_score([torch.tensor([[2.0]]), torch.tensor([[4.0, 6.0, 8.0]])]) == 4


def test_penalty_is_the_squared_slope():
    """For scores that are linear in the latents: of slope 3, moved by normal noise of 0.1."""
    noise = torch.tensor([[1.0, -2.0]])
    real = [torch.zeros(1, 2)]
    moved = [3 * 0.1 * noise]
    assert approximate_r1(real, moved, 0.1).item() == pytest.approx(9 * noise.square().mean().item())
    assert approximate_r1(real, real, 0.1) == 0


def test_sums_are_in_float32():
    scores = [torch.full((1, 1000), 1.001).bfloat16()]
    assert mean_score(scores).dtype == torch.float32
    assert discriminator_loss(scores, scores).dtype == torch.float32
