"""Noise levels that training draws."""

import pytest
import torch
from helpers import TINY

from kandinsky.sampler import predict_x0, renoise
from kandinsky.training.levels import Levels, LogitNormal, StepWeights, velocity_target


def test_logit_normal():
    drawn = LogitNormal(mean=0.0, std=1.0).draw(2000, torch.Generator().manual_seed(0))
    assert drawn.min() >= 0 and drawn.max() <= 999
    assert abs(drawn.float().mean() - 499.5) < 20
    assert LogitNormal(mean=0.0, std=0.0).draw(3, torch.Generator()).tolist() == [500, 500, 500]
    noisier = LogitNormal(mean=1.0, std=1.0).draw(2000, torch.Generator().manual_seed(0))
    assert noisier.float().mean() > drawn.float().mean() + 100


def test_weights_of_steps():
    drawn = StepWeights(weights=(0.0, 3.0, 1.0)).draw(2000, torch.Generator().manual_seed(0))
    counts = drawn.bincount(minlength=3)
    assert counts[0] == 0
    assert counts[1] / counts[2] == pytest.approx(3, rel=0.2)


def test_what_is_no_distribution_is_refused():
    with pytest.raises(ValueError, match=r"std=-1: allowed is 0 and more"):
        LogitNormal(mean=0.0, std=-1)
    for weights in ((), (0.0, 0.0), (-1.0, 2.0)):
        with pytest.raises(ValueError, match=r"allowed are numbers from 0, not all of them 0"):
            StepWeights(weights=weights)


def test_levels_are_the_samplers():
    levels = Levels(TINY / "scheduler")
    assert levels.steps.tolist() == [999, 749, 499, 249] == list(levels.schedule.timesteps)
    alphas = levels.alpha(levels.steps)
    assert alphas.shape == (4, 1, 1, 1, 1)
    torch.testing.assert_close(alphas.flatten(), torch.tensor(levels.schedule.alphas_cumprod), check_dtype=False)
    assert levels.alpha(torch.tensor([999])).item() == 0
    assert not levels.state_dict()  # no checkpoint holds them
    assert len(Levels(TINY / "scheduler", num_steps=50).steps) == 50


def test_the_target_is_the_velocity_that_gives_the_latents_back():
    latents, noise = torch.randn(2, 3, 1, 4, 4, 16)
    alpha = Levels(TINY / "scheduler").alpha(torch.tensor([999, 500, 0]))
    noisy = renoise(latents, noise, alpha)
    torch.testing.assert_close(predict_x0(noisy, velocity_target(latents, noise, alpha), alpha), latents)
