"""Averages of weights."""

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from training_helpers import run

from kandinsky.training.ema import Ema
from kandinsky.training.settings import LaddSettings


def layer(value):
    linear = nn.Linear(1, 1, bias=False)
    nn.init.constant_(linear.weight, value)
    return linear


def test_early_averages_forget_the_first_weights():
    """Weight of what was there: (1 + n) / (10 + n) after n updates, until that is more than the decay."""
    module = layer(0.0)
    ema, expected = Ema(module, 0.25), 0.0
    for updates in range(1, 6):
        nn.init.constant_(module.weight, float(updates))
        ema.update()
        decay = min(0.25, (1 + updates) / (10 + updates))
        expected = decay * expected + (1 - decay) * updates
        with ema.swapped():
            assert module.weight.item() == pytest.approx(expected)
        assert module.weight.item() == updates
    assert ema.updates == 5


def test_weights_come_back_after_an_error():
    module = layer(1.0)
    ema = Ema(module, 0.9)
    nn.init.constant_(module.weight, 2.0)
    with pytest.raises(RuntimeError, match="no"), ema.swapped():
        assert module.weight.item() == 1
        raise RuntimeError("no")
    assert module.weight.item() == 2


def test_a_decay_of_zero_averages_nothing():
    module = layer(1.0)
    ema = Ema(module, 0.0)
    nn.init.constant_(module.weight, 2.0)
    ema.update()
    with ema.swapped():
        assert module.weight.item() == 2


def test_averages_are_those_of_the_run(data, teacher, tmp_path):
    """What is saved as the average is it: (2 w0 + 9 w1) / 11 after the first step."""
    folder = run(LaddSettings, data, teacher, tmp_path, steps=1)
    before = load_file(teacher)
    after, averaged = load_file(folder / "model.safetensors"), load_file(folder / "ema.safetensors")
    for name, value in averaged.items():
        expected = (2 * before[name] + 9 * after[f"student.{name}"]) / 11
        torch.testing.assert_close(value, expected, atol=1e-7, rtol=1e-5)
    assert any(not torch.equal(value, after[f"student.{name}"]) for name, value in averaged.items())
