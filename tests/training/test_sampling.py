"""Samplers of a batch: with the velocity of one known clip, and against the pipeline's own."""

import pytest
import torch
from helpers import TINY
from model_helpers import SMALL_DIT

from kandinsky.checkpoint.random_weights import random_dit
from kandinsky.sampler import draw_noise, sample
from kandinsky.training import sampling
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import ddim, sample_from


def clip(seed):
    return torch.randn(1, 1, 4, 4, 16, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("steps", "sampler"), [(4, sample_from), (50, ddim)])
def test_samples_go_where_a_perfect_model_points(steps, sampler, monkeypatch):
    levels, target = Levels(TINY / "scheduler", num_steps=steps), clip(0)

    def known(_dit, noisy, _text, time):
        """What turns any noisy latents into `target`."""
        alpha = levels.alpha(time)
        return (alpha.sqrt() * noisy - target) / (1 - alpha).sqrt()

    noise = torch.stack([clip(seed) for seed in range(1, 5)]) if sampler is sample_from else clip(1)
    monkeypatch.setattr(sampling, "velocity", known)
    made = sampler(None, levels, noise, torch.zeros(1, 1, 1))
    torch.testing.assert_close(made, target, atol=1e-3, rtol=1e-3)


@torch.no_grad()
def test_four_steps_are_the_pipelines():
    """From the noise that it draws."""
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0), dtype=torch.float32)
    levels, text = Levels(TINY / "scheduler"), torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    steps = torch.tensor(levels.schedule.timesteps)
    expected = sample(
        lambda latents, index: dit(latents.float(), text, steps[index : index + 1]),
        (1, 4, 4, 16),
        levels.schedule,
        generator=torch.Generator().manual_seed(2),
        device=torch.device("cpu"),
    )
    generator = torch.Generator().manual_seed(2)
    draw_noise((1, 4, 4, 16), generator)
    noises = torch.stack([draw_noise((1, 4, 4, 16), generator).float()[None] for _ in range(4)])
    found = sample_from(dit, levels, noises, text[None])
    torch.testing.assert_close(found[0].double(), expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_clips_of_a_batch_do_not_know_of_each_other():
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(0), dtype=torch.float32)
    levels, text = Levels(TINY / "scheduler", num_steps=3), torch.randn(2, 3, 64)
    noise = torch.cat((clip(1), clip(2)))
    together = ddim(dit, levels, noise, text)
    alone = torch.cat([ddim(dit, levels, noise[i : i + 1], text[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)
