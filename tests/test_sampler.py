"""The schedule against diffusers' scheduler, and the formulas against each other."""

import json
from dataclasses import replace

import pytest
import torch
from diffusers import CogVideoXDDIMScheduler
from helpers import TINY

from kandinsky.known.latents import Known
from kandinsky.sampler import NOISED, Schedule, draw_noise, noise_levels, predict_x0, renoise, sample

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


def test_noise_is_drawn_while_the_device_works():
    """Each step's but the first while the one before it runs; the generator ends where the published one does."""
    shape, generator, drawn = (3, 2, 2, 16), torch.Generator().manual_seed(5), torch.Generator().manual_seed(5)
    draw_noise(shape, drawn)

    def velocity(x, _index):
        draw_noise(shape, drawn)
        assert torch.equal(generator.get_state(), drawn.get_state())
        return x

    sample(velocity, shape, Schedule.from_config(CONFIG), generator=generator, device=CPU)
    assert torch.equal(generator.get_state(), drawn.get_state())


@pytest.mark.parametrize("first", range(4))
def test_a_run_that_begins_later_has_the_noise_of_its_steps(first):
    known = Known(torch.zeros(3, 2, 2, 16), torch.zeros(3, 2, 2, dtype=torch.bool), first)
    _, seen = run(known)
    alpha = Schedule.from_config(CONFIG).alphas_cumprod[first]
    start = known.latents.double() if first else torch.zeros(3, 2, 2, 16, dtype=torch.float64)
    assert seen[0][0] == first
    assert torch.equal(seen[0][1], renoise(start, noises_of_a_run()[first], alpha))


def run(known=None, on_step=None):
    seen = []

    def velocity(x, index):
        seen.append((index, x.clone()))
        return (x * (index + 1)).bfloat16()

    settings = {"generator": torch.Generator().manual_seed(5), "device": CPU, "known": known, "on_step": on_step}
    return sample(velocity, (3, 2, 2, 16), Schedule.from_config(CONFIG), **settings), seen


def noises_of_a_run():
    generator = torch.Generator().manual_seed(5)
    return [draw_noise((3, 2, 2, 16), generator).double() for _ in range(5)][1:]


def known_first_frame(first=0):
    mask = torch.zeros(3, 2, 2, dtype=torch.bool)
    mask[0] = True
    latents = torch.randn(3, 2, 2, 16, generator=torch.Generator().manual_seed(1)).bfloat16()
    return Known(latents, mask, first)


def test_nothing_known_changes_no_bit():
    nothing = Known(torch.ones(3, 2, 2, 16), torch.zeros(3, 2, 2, dtype=torch.bool))
    assert torch.equal(run()[0], run(nothing)[0])


@pytest.mark.parametrize("noised", NOISED)
def test_the_known_part_is_bit_equal_and_seen_at_every_step(noised):
    known = replace(known_first_frame(), noised=noised)
    latents, seen = run(known)
    assert torch.equal(latents[0], known.latents[0].double())
    assert not torch.equal(latents[1], known.latents[1].double())
    levels = Schedule.from_config(CONFIG).alphas_cumprod
    noises = noises_of_a_run()
    for index, x in seen:
        level = {"own": levels[index], "ahead": levels[min(index + 1, 3)], "last": levels[3], "none": 1.0}[noised]
        expected = renoise(known.latents.double(), noises[index], level)
        assert torch.equal(x[0], expected[0])


def toned_run(mask, off):
    """What a model whose predictions are off by `off` makes of a clip that is known where `mask` says: its errors."""
    truth = torch.randn(*mask.shape, 4, generator=torch.Generator().manual_seed(2)).double()
    schedule = Schedule.from_config(CONFIG)

    def velocity(x, index):
        alpha = schedule.alphas_cumprod[index]
        return (alpha**0.5 * x - truth - off) / (1 - alpha) ** 0.5

    known = Known(truth, mask, toned=True)
    settings = {"generator": torch.Generator().manual_seed(5), "device": CPU, "known": known}
    made = sample(velocity, tuple(truth.shape), schedule, **settings)
    plain = sample(velocity, tuple(truth.shape), schedule, **{**settings, "known": replace(known, toned=False)})
    torch.testing.assert_close(plain, torch.where(mask[..., None], truth, truth + off))
    return made - truth


def test_the_rest_gets_the_tone_of_a_known_frame():
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)
    mask[0] = True
    off = torch.tensor([1.0, -2.0, 0.0, 0.5]).double().expand(3, 4, 4, 4).clone()
    off[0, :2, :3] += 9  # something else was predicted there: less than half of the frame
    made = toned_run(mask, off)
    assert made.abs().max() < 1e-9


def test_the_rest_gets_the_tone_of_a_part_and_of_two_frames():
    mask = torch.zeros(5, 4, 4, dtype=torch.bool)
    mask[0, :, :1] = mask[4] = True
    off = torch.zeros(5, 4, 4, 4).double()
    off[0], off[4] = 1, 3
    made = toned_run(mask, off)[:, 3, 3, 0].tolist()
    assert made == pytest.approx([0, -1.5, -2, -2.5, 0])  # in between what lies between


def test_callbacks_see_and_cannot_change_the_known_part():
    known, shown = known_first_frame(), []
    latents, _ = run(known, on_step=lambda _, latents: shown.append(latents) or torch.zeros_like(latents))
    assert all(torch.equal(each[0], known.latents[0].double()) for each in shown)
    assert torch.equal(latents[0], known.latents[0].double())


@pytest.mark.parametrize("first", [1, 2, 3])
def test_a_later_beginning_skips_steps_and_not_their_noise(first):
    known = replace(known_first_frame(first), mask=torch.zeros(3, 2, 2, dtype=torch.bool))
    _, seen = run(known)
    assert [index for index, _ in seen] == list(range(first, 4))
    alpha = Schedule.from_config(CONFIG).alphas_cumprod[first]
    assert torch.equal(seen[0][1], renoise(known.latents.double(), noises_of_a_run()[first], alpha))
