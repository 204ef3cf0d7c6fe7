"""Objectives of low-rank training: gradients reach each adapter and no other weight; what is to stay is asked for."""

import pytest
import torch
from helpers import TINY
from lora_training_helpers import lora_settings, small_model
from training_helpers import first_batch

from kandinsky.training.keep import make_kept
from kandinsky.training.levels import Levels
from kandinsky.training.lora_model import Adapters
from kandinsky.training.lora_objectives import LoraLadd, LoraVelocity

CPU = torch.device("cpu")
KINDS = {"ladd": LoraLadd, "velocity": LoraVelocity}


def objective_of(name, data, teacher, tmp_path, *, keep=False, **changes):
    settings = lora_settings(data, teacher, tmp_path, objective=name, **changes)
    model, levels = small_model(teacher), Levels(TINY / "scheduler")
    batch = first_batch(data)
    kept = None
    if keep:
        kept = make_kept(model.base, levels, batch.text.float(), [tuple(batch.latents.shape[1:])], seed=0, device=CPU)
    return KINDS[name](model, levels, settings, kept), batch


def losses_of(objective, batch):
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    return objective(batch.latents.float(), batch.text.float(), draws)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_reach_every_adapter_and_nothing_else(name, checkpointing, data, teacher, tmp_path):
    objective, batch = objective_of(name, data, teacher, tmp_path, checkpointing=checkpointing)
    losses_of(objective, batch).total.backward()
    model = objective.keeping.model
    # `up` begins at zero, so that `down` gets a gradient of zeros at first: it is there all the same.
    assert all(value.grad is not None for value in objective.student.parameters())
    assert all(value.grad.abs().max() > 0 for name, value in objective.student.named_parameters() if "lora_B" in name)
    assert all(value.grad is None for value in model.base.parameters())
    assert {name.split(".")[0] for name, _ in objective.named_parameters()} <= {"student", "heads"}


@pytest.mark.parametrize("name", KINDS)
def test_checkpointing_changes_nothing(name, data, teacher, tmp_path):
    gradients = []
    for checkpointing in (False, True):
        objective, batch = objective_of(name, data, teacher, tmp_path, checkpointing=checkpointing)
        losses_of(objective, batch).total.backward()
        gradients.append({n: value.grad for n, value in objective.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value)


@pytest.mark.parametrize("name", KINDS)
def test_what_is_kept_is_no_loss_at_first_and_one_later(name, data, teacher, tmp_path):
    objective, batch = objective_of(name, data, teacher, tmp_path, keep=True, keep_weight=3.0)
    losses = losses_of(objective, batch)
    assert losses.logs["keep"] == 0
    with torch.no_grad():
        for value in Adapters(objective.keeping.model.dit).parameters():
            value.add_(0.1)
    changed = losses_of(objective, batch)
    plain, _ = objective_of(name, data, teacher, tmp_path)
    with torch.no_grad():
        for value in Adapters(plain.keeping.model.dit).parameters():
            value.add_(0.1)
    alone = losses_of(plain, batch)
    assert changed.logs["keep"] > 0
    assert "keep" not in alone.logs
    if name == "ladd":  # the other draws come first, and are the same
        torch.testing.assert_close(changed.total - alone.total, 3 * changed.logs["keep"])


def test_one_step_on_a_batch_is_the_sum_of_its_parts(data, teacher, tmp_path):
    """What `micro_batch` relies on: the losses are means over clips."""
    objective, batch = objective_of("velocity", data, teacher, tmp_path)
    draws = objective.draw(tuple(batch.latents.shape), torch.Generator().manual_seed(0))
    whole = objective(batch.latents.float(), batch.text.float(), draws).total
    parts = [
        objective(
            batch.latents[i : i + 1].float(), batch.text[i : i + 1].float(), type(draws)(*(d[i : i + 1] for d in draws))
        )
        for i in range(2)
    ]
    torch.testing.assert_close(whole, sum(part.total for part in parts) / 2)


def test_samples_are_those_of_the_adapted_dit(data, teacher, tmp_path):
    objective, batch = objective_of("ladd", data, teacher, tmp_path)
    noises = torch.randn(4, *batch.latents.shape, generator=torch.Generator().manual_seed(0))
    before = objective(noises, batch.text.float(), None)
    with torch.no_grad():
        for value in objective.student.parameters():
            value.add_(0.1)
    assert not torch.allclose(objective(noises, batch.text.float(), None), before)
