"""Low-rank training that goes on from other low-rank weights."""

import dataclasses

import pytest
import torch
from lora_training_helpers import lora_settings
from safetensors.torch import load_file

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import add_low_rank, linears_of, read_lora
from kandinsky.training.lora import load_adapted, train_lora
from kandinsky.training.lora_initial import read_initial
from kandinsky.training.lora_model import lora_layers

CPU = torch.device("cpu")


@pytest.fixture
def before(data, teacher, tmp_path):
    """A file that a run wrote, of rank 4 and alpha 4."""
    return train_lora(lora_settings(data, teacher, tmp_path / "before", objective="velocity"), progress=False)


@pytest.mark.parametrize("alpha", [None, 2.0])
def test_it_begins_with_what_a_pipeline_would_add(alpha, before, data, teacher, tmp_path):
    settings = lora_settings(data, teacher, tmp_path / "after", initial=before, alpha=alpha)
    given = read_lora(before, linears_of(open_checkpoint(teacher).shapes)).layers
    for name, layer in lora_layers(load_adapted(settings, CPU).dit).items():
        added = layer.get_delta_weight("default")
        torch.testing.assert_close(added, add_low_rank(torch.zeros_like(added), [(given[name], 1.0)], None))
        assert added.any()


def test_training_goes_on_from_there(before, data, teacher, tmp_path):
    """Steps so small that what is written shows where they began; the objective may be another one."""
    settings = lora_settings(data, teacher, tmp_path / "after", initial=before, objective="ladd")
    still = dataclasses.replace(settings.optimiser, learning_rate=1e-12)
    after = train_lora(dataclasses.replace(settings, optimiser=still), progress=False)
    one, other = load_file(before), load_file(after)
    assert one.keys() == other.keys()
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_what_does_not_fit_is_refused_before_weights_are_loaded(before, data, teacher, tmp_path, monkeypatch):
    monkeypatch.setattr("kandinsky.training.lora.load_dit", lambda *_, **__: pytest.fail("weights were loaded"))
    settings = lora_settings(data, teacher, tmp_path / "after", initial=before)
    with pytest.raises(ValueError, match=r"initial='.*lora.safetensors' has rank 4; allowed is rank=8"):
        load_adapted(dataclasses.replace(settings, rank=8), CPU)
    with pytest.raises(ValueError, match=r"initial=.*: its Linears are not those of targets: 12 Linears, first 'tr"):
        load_adapted(dataclasses.replace(settings, targets=("feed_forward.in_layer",)), CPU)
    with pytest.raises(FileNotFoundError, match="LoRA not found"):
        load_adapted(dataclasses.replace(settings, initial=tmp_path / "nothing.safetensors"), CPU)
    assert len(read_initial(settings, open_checkpoint(teacher).shapes).layers) == 16
