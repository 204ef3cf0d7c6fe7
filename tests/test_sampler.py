"""The schedule against diffusers' scheduler, and the formulas against each other."""

import json

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from helpers import TINY

from kandinsky.sampler import Schedule, draw_noise, noise_levels, predict_x0, renoise, sample

CONFIG = json.loads((TINY / "scheduler" / "scheduler_config.json").read_text())
CPU = torch.device("cpu")


@pytest.mark.parametrize("steps", [1, 4, 50])
def test_schedule_equals_diffusers(steps):
    scheduler = CogVideoXDDIMScheduler.from_config(CONFIG)
    scheduler.set_timesteps(steps)
    schedule = Schedule.from_config(CONFIG, num_steps=steps)
    assert list(schedule.timesteps) == scheduler.timesteps.tolist()
    assert schedule.alphas_cumprod == tuple(scheduler.alphas_cumprod[scheduler.timesteps].tolist())


@pytest.mark.parametrize("change", [{"snr_shift_scale": 3.0}, {"rescale_betas_zero_snr": False}, {"beta_end": 0.02}])
def test_noise_levels_equal_diffusers(change):
    scheduler = CogVideoXDDIMScheduler.from_config(CONFIG | change)
    assert torch.allclose(noise_levels(CONFIG | change), scheduler.alphas_cumprod, rtol=1e-12, atol=0)


def test_published_levels():
    schedule = Schedule.from_config(CONFIG)
    assert schedule.timesteps == (999, 749, 499, 249)
    assert schedule.alphas_cumprod == pytest.approx((0, 0.0331715, 0.2423592, 0.6541890), abs=1e-7)


def test_unsupported_schedule():
    with pytest.raises(ValueError, match=r"prediction_type='epsilon': this sampler computes 'v_prediction' only"):
        Schedule.from_config(CONFIG | {"prediction_type": "epsilon"})


def test_predict_x0_inverts_renoise():
    x0, noise, alpha = torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64), 0.3
    velocity = alpha**0.5 * noise - (1 - alpha) ** 0.5 * x0
    assert torch.allclose(predict_x0(renoise(x0, noise, alpha), velocity, alpha), x0)


def test_sample_follows_the_published_loop():
    """The loop written out as the published code runs it, with a velocity that depends on everything."""
    shape, schedule = (2, 3, 4, 16), Schedule.from_config(CONFIG)
    steps = []

    def velocity(x, index):
        steps.append(index)
        return (x * (index + 1)).bfloat16()

    latents = sample(velocity, shape, schedule, generator=torch.Generator().manual_seed(5), device=CPU)
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(shape, generator=generator).bfloat16().double()
    for index, alpha in enumerate(schedule.alphas_cumprod):
        noise = torch.randn(shape, generator=generator).bfloat16().double()
        x = alpha**0.5 * x + (1 - alpha) ** 0.5 * noise
        x = alpha**0.5 * x - (1 - alpha) ** 0.5 * (x * (index + 1)).bfloat16().double()
    assert steps == [0, 1, 2, 3]
    assert latents.dtype == torch.float64
    assert torch.allclose(latents, x, rtol=1e-12)


def test_noise_is_float32_rounded_to_bfloat16():
    noise = draw_noise((3, 5), torch.Generator().manual_seed(1))
    assert torch.equal(noise, torch.randn(3, 5, generator=torch.Generator().manual_seed(1)).bfloat16())
