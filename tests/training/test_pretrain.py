"""Pretraining: the loss, what is drawn, and that it learns."""

import json
from dataclasses import asdict

import pytest
import torch
import yaml
from helpers import SMALL, just_saved, own_weights
from model_helpers import SMALL_DIT
from training_helpers import first_batch, objective_of, run, run_settings

from kandinsky.training.levels import LogitNormal
from kandinsky.training.pretrain import main
from kandinsky.training.settings import AdamSettings, PretrainSettings


def test_the_loss_is_the_error_of_the_velocity(data, teacher, tmp_path):
    """A fresh DiT says 0, so that it is the mean square of the target."""
    objective = objective_of(run_settings(PretrainSettings, data, teacher, tmp_path))
    batch = first_batch(data)
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    alpha = objective.levels.alphas[draws.time].view(-1, 1, 1, 1, 1)
    target = alpha.sqrt() * draws.noise - (1 - alpha).sqrt() * batch.latents.float()
    losses = objective(batch.latents.float(), batch.text.float(), draws)
    assert losses.total.item() == pytest.approx(target.square().mean().item(), rel=1e-5)
    assert losses.logs == {"loss": losses.total}


def test_draws(data, teacher, tmp_path):
    """Timesteps are uniform, or those of a distribution."""
    shape = (512, 1, 2, 2, 16)
    uniform, fixed = (
        objective_of(run_settings(PretrainSettings, data, teacher, tmp_path, levels=levels)).draw(
            shape, torch.Generator().manual_seed(0)
        )
        for levels in (None, LogitNormal(mean=0.0, std=0.0))
    )
    assert uniform.time.min() < 20 and uniform.time.max() > 980
    assert set(fixed.time.tolist()) == {500}
    assert uniform.noise.shape == fixed.noise.shape == shape


@pytest.mark.slow
def test_it_learns(data, teacher, tmp_path):
    """On ten clips, each of one colour, the loss falls."""
    changes = {"steps": 40, "save_every": 0, "batch_size": 4}
    run(PretrainSettings, data, teacher, tmp_path, optimiser=AdamSettings(learning_rate=1e-2), **changes)
    losses = [json.loads(line)["loss"] for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])


def test_a_run_from_a_file(data, teacher, tmp_path):
    """From given weights."""
    values = {
        "weights": str(just_saved(own_weights(tmp_path / "w", SMALL))),
        "data": str(data),
        "output": str(tmp_path / "out"),
        "initial": str(teacher),
        "dit": {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(SMALL_DIT).items()},
        "steps": 1,
        "batch_size": 2,
        "mixed_precision": "no",
        "optimiser": {"learning_rate": 1e-3},
    }
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(values))
    main([str(tmp_path / "config.yaml")])
    assert (tmp_path / "out" / "checkpoint-00000001" / "model.safetensors").is_file()
