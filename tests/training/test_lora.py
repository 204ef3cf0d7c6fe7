"""Whole runs of low-rank training: resumed, a part of the batch at a time, and a loss that is not finite."""

import dataclasses
import json

import pytest
import torch
from checkpoint_helpers import DIT
from lora_training_helpers import lora_settings
from safetensors.torch import load_file

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import linears_of, read_lora
from kandinsky.errors import TrainingError
from kandinsky.training.data import Encoded, write_shards
from kandinsky.training.lora import main, train_lora
from kandinsky.training.settings import AdamSettings


def state(folder, step=2):
    return load_file(folder / f"checkpoint-{step:08}" / "model.safetensors")


@pytest.mark.parametrize("objective", ["ladd", "velocity"])
def test_a_run_and_its_file(objective, data, teacher, tmp_path):
    base = teacher.read_bytes()
    file = train_lora(lora_settings(data, teacher, tmp_path, objective=objective, alpha=2.0), progress=False)
    assert file == tmp_path / "lora.safetensors"
    lora = read_lora(file, linears_of(open_checkpoint(teacher).shapes))
    assert len(lora.layers) == 16
    assert {layer.scale for layer in lora.layers.values()} == {0.5}
    assert any(layer.up.any() for layer in lora.layers.values())
    assert teacher.read_bytes() == base
    assert sum(path.stat().st_size for path in tmp_path.rglob("model.safetensors")) < 10**6 or objective == "ladd"


def test_resumed_is_uninterrupted(data, teacher, tmp_path):
    """To the bit, on a CPU."""
    train_lora(lora_settings(data, teacher, tmp_path / "one", save_every=1), progress=False)
    first = lora_settings(data, teacher, tmp_path / "two", save_every=1)
    train_lora(dataclasses.replace(first, steps=1), progress=False)
    train_lora(first, progress=False)
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    assert all(torch.equal(value, two[name]) for name, value in one.items())


def test_another_run_is_not_taken_up(data, teacher, tmp_path, monkeypatch):
    first = lora_settings(data, teacher, tmp_path / "one", steps=1, objective="velocity")
    other = train_lora(first, progress=False)
    monkeypatch.setattr("kandinsky.training.lora.load_dit", lambda *_, **__: pytest.fail("weights were loaded"))
    changes = {"initial": other, "rank": 2, "alpha": 2.0, "objective": "ladd", "targets": ("feed_forward.in_layer",)}
    for name, value in changes.items():
        with pytest.raises(ValueError, match=rf"{name}=.*: .* was made with .*; take another output"):
            train_lora(dataclasses.replace(first, steps=2, **{name: value}), progress=False)


def test_a_part_of_the_batch_at_a_time(data, teacher, tmp_path):
    for name, part in (("whole", None), ("parts", 1)):
        train_lora(
            lora_settings(data, teacher, tmp_path / name, objective="velocity", micro_batch=part), progress=False
        )
    one, two = state(tmp_path / "whole"), state(tmp_path / "parts")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["ladd", "velocity"])
def test_what_is_kept_and_float8(objective, tmp_path):
    """All that saves memory, at once, on the tiny random weights with their text encoder."""
    generator = torch.Generator().manual_seed(0)
    clips = [
        Encoded(str(n), "", *(torch.randn(*size, generator=generator) for size in ((1, 4, 4, 16), (224, 64))))
        for n in range(2)
    ]
    write_shards(clips, tmp_path / "data")
    (tmp_path / "keep.txt").write_text("a cat\na dog\n")
    options = {"keep": tmp_path / "keep.txt", "base_precision": "float8", "checkpointing": True, "heads_every": 2}
    settings = lora_settings(tmp_path / "data", DIT, tmp_path / "out", objective=objective, micro_batch=1, **options)
    train_lora(settings, progress=False)
    lines = [json.loads(line) for line in (tmp_path / "out" / "log.jsonl").read_text().splitlines()]
    assert lines[0]["keep"] == 0
    assert lines[1]["keep"] > 0
    assert ("real/0" in lines[0], "real/1" in lines[0]) == (objective == "ladd", False)


def test_a_loss_that_is_not_finite_keeps_the_last_good_weights(data, teacher, tmp_path):
    good = lora_settings(data, teacher, tmp_path, steps=1)
    file = train_lora(good, progress=False)
    before = file.read_bytes()
    file.unlink()
    huge = AdamSettings(learning_rate=1e30, warmup=0)
    with pytest.raises(TrainingError, match=r"not finite: .*checkpoint-00000001 stands") as error:
        train_lora(lora_settings(data, teacher, tmp_path, steps=4, optimiser=huge), progress=False)
    assert str(file) in error.value.__notes__[0]
    assert file.read_bytes() == before


def test_a_run_from_a_file(data, teacher, tmp_path, capsys):
    from helpers import TINY

    config = tmp_path / "lora.yaml"
    config.write_text(f"""
        weights: {TINY}
        data: {data}
        base: {teacher}
        output: {tmp_path / "out"}
        objective: velocity
        rank: 2
        steps: 9
        batch_size: 2
        mixed_precision: "no"
        optimiser: {{learning_rate: 1e-3}}
        heads: {{learning_rate: 1e-3}}
    """)
    main([str(config), "--steps", "1"])
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "lora.safetensors")
    config.write_text(config.read_text().replace(str(teacher), str(tmp_path / "nothing.pt")))
    with pytest.raises(SystemExit) as stopped:
        main([str(config)])
    assert stopped.value.code == 1
    assert "weights not found" in capsys.readouterr().err
