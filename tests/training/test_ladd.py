"""The distillation: where gradients go, and what is computed."""

import pytest
import torch
from helpers import SMALL, just_saved, own_weights
from training_helpers import losses_of, objective_of, run_settings

from kandinsky.sampler import predict_x0, renoise
from kandinsky.training.ladd import main
from kandinsky.training.settings import LaddSettings
from kandinsky.training.velocity import velocity


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_the_student_and_heads_only(data, teacher, checkpointing, tmp_path):
    objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path, checkpointing=checkpointing))
    losses = losses_of(objective, data)
    losses.total.backward()
    for name, value in objective.named_parameters():
        assert value.grad is not None, name
        assert value.grad.abs().sum() > 0 or name.endswith("bias"), name
    assert all(value.grad is None for value in objective.frozen[0].parameters())
    assert {"student", "heads", "penalty", "real/0", "real/1", "fake/0", "fake/1"} == losses.logs.keys()


def test_student_and_heads_do_not_move_each_other(data, teacher, tmp_path):
    """The student's gradient is that of its own loss; the heads' that of the hinge."""
    objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path, r1_weight=0.0))
    losses = losses_of(objective, data)
    student, heads = list(objective.student.parameters()), list(objective.heads.parameters())
    for loss, parameters in (("student", heads), ("heads", student)):
        found = torch.autograd.grad(losses.logs[loss], parameters, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in found), loss


def test_the_total_is_the_sum_of_its_parts(data, teacher, tmp_path):
    for weight in (0.0, 0.1):
        objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path, r1_weight=weight))
        losses = losses_of(objective, data)
        logs = losses.logs
        torch.testing.assert_close(losses.total, logs["student"] + logs["heads"] + weight * logs["penalty"])
        assert (logs["penalty"] > 0) == (weight > 0)


def test_the_student_denoises_in_one_step(data, teacher, tmp_path):
    objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path))
    generator = torch.Generator().manual_seed(0)
    noisy, text = torch.randn(2, 1, 4, 4, 16, generator=generator), torch.randn(2, 3, 64, generator=generator)
    times = torch.tensor([999, 249])
    with torch.no_grad():
        found = objective.denoise(noisy, text, torch.tensor([0, 3]))
        expected = predict_x0(noisy, velocity(objective.student, noisy, text, times), objective.levels.alpha(times))
    torch.testing.assert_close(found, expected)


def test_draws(data, teacher, tmp_path):
    """Of the settings' distributions, on the shape of the latents; a seed gives the same."""
    objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path))
    shape = (64, 1, 4, 4, 16)
    one, other = (objective.draw(shape, torch.Generator().manual_seed(0)) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    assert set(one.steps.tolist()) == {0, 1, 2, 3}
    assert 0 <= one.time.min() < one.time.max() <= 999
    noises = (one.student_noise, one.fake_noise, one.real_noise, one.nudge)
    assert all(noise.shape == shape for noise in noises)
    assert not any(torch.equal(noises[0], noise) for noise in noises[1:])


def test_the_student_is_given_latents_without_noise_and_keeps_them(data, teacher, tmp_path, monkeypatch):
    """What it sees, and what the heads see of it."""
    objective = objective_of(run_settings(LaddSettings, data, teacher, tmp_path, known_share=1.0))
    shape = (8, 3, 4, 4, 16)
    generator = torch.Generator().manual_seed(0)
    latents, text = torch.randn(shape, generator=generator), torch.randn(8, 3, 64, generator=generator)
    draws = objective.draw(shape, generator)
    assert draws.known.any()
    seen = {}

    def denoise(noisy, *_):
        seen["student"] = noisy
        return torch.zeros_like(noisy)

    def features(noisy, *_, **__):
        seen.setdefault("heads", noisy)
        raise InterruptedError

    monkeypatch.setattr(objective, "denoise", denoise)
    monkeypatch.setattr(objective, "features", features)
    with pytest.raises(InterruptedError):
        objective(latents, text, draws)
    assert torch.equal(seen["student"][draws.known], latents[draws.known])
    assert (seen["student"] != latents).any(-1)[~draws.known].all()
    made = torch.where(draws.known[..., None], latents, 0)
    assert torch.equal(seen["heads"], renoise(made, draws.fake_noise, objective.levels.alpha(draws.time)))


def test_heads_are_the_same_on_every_process(data, teacher, tmp_path):
    settings = run_settings(LaddSettings, data, teacher, tmp_path)
    one, other = (objective_of(settings).heads.state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_from_a_file(data, teacher, tmp_path):
    config = tmp_path / "ladd.yaml"
    config.write_text(f"""
        weights: {just_saved(own_weights(tmp_path / "w", SMALL))}
        data: {data}
        teacher: {teacher}
        output: {tmp_path / "out"}
        steps: 9
        batch_size: 2
        mixed_precision: "no"
        optimiser: {{learning_rate: 1e-3}}
        heads: {{learning_rate: 1e-3}}
    """)
    main([str(config), "--steps", "1"])
    assert (tmp_path / "out" / "checkpoint-00000001" / "ema.safetensors").is_file()
