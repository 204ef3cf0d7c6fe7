"""What a run is configured with, read strictly."""

import sys
from pathlib import Path

import pytest
import yaml

from kandinsky.training.levels import LogitNormal, StepWeights
from kandinsky.training.settings import AdamSettings, LaddSettings, build, read_settings

VALUES = {
    "weights": "w",
    "data": "d",
    "output": "o",
    "steps": 10,
    "batch_size": 2,
    "teacher": "t.pt",
    "optimiser": {"learning_rate": "1e-4"},
    "heads": {"learning_rate": 1},
}


def test_values_become_what_they_are_declared_as():
    changes = {"student_levels": {"weights": [1, 2]}, "discriminator_levels": {"mean": 0, "std": 1}, "fsdp": True}
    settings = build(LaddSettings, VALUES | changes, where="file")
    assert (settings.weights, settings.steps, settings.fsdp) == (Path("w"), 10, True)
    assert (settings.optimiser.learning_rate, settings.heads.learning_rate) == (1e-4, 1.0)
    assert settings.student_levels == StepWeights(weights=(1.0, 2.0))
    assert settings.discriminator_levels == LogitNormal(mean=0.0, std=1.0)
    assert settings.max_seconds is None
    assert settings.groups() == {"student": settings.optimiser, "heads": settings.heads}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stepz": 1}, "file: unknown 'stepz'; allowed are weights, data"),
        ({"steps": 0}, "steps=0: allowed is 1"),
        ({"batch_size": 1}, "batch_size=1: allowed is 2"),
        ({"steps": "many"}, "file: steps='many': allowed is int"),
        ({"steps": True}, "steps=True: allowed is int"),
        ({"fsdp": 1}, "fsdp=1: allowed is bool"),
        ({"ema_decay": 1}, r"ema_decay=1\.0: allowed is 0 up to, but not, 1"),
        ({"mixed_precision": "fp16"}, "mixed_precision='fp16': allowed are 'bf16', 'tf32', 'no'"),
        ({"optimiser": {}}, "file: optimiser: 'learning_rate' is missing"),
        ({"optimiser": 3}, "file: optimiser: expected a mapping, found 3"),
        ({"r1_weight": -1}, "r1_weight=-1"),
        ({"known_share": 1.5}, r"known_share=1\.5: allowed is 0 to 1"),
        ({"student_levels": {"weights": [0]}}, "allowed are numbers from 0, not all of them 0"),
    ],
)
def test_what_is_not_allowed_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        build(LaddSettings, VALUES | change, where="file")


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="file: 'teacher' is missing"):
        build(LaddSettings, {name: value for name, value in VALUES.items() if name != "teacher"}, where="file")


def test_tensorboard_needs_its_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)  # as if it were not installed
    with pytest.raises(ValueError, match="tensorboard=True needs a package"):
        build(LaddSettings, VALUES | {"tensorboard": True}, where="file")


def test_a_command_wins_over_its_file(tmp_path):
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(VALUES))
    settings = read_settings(LaddSettings, [str(tmp_path / "file.yaml"), "--steps", "3", "--output", "there"])
    assert (settings.steps, settings.output, settings.max_seconds) == (3, Path("there"), None)
    assert settings.batch_size == 2


def test_home_is_expanded_in_the_file_and_in_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "file.yaml").write_text(yaml.safe_dump(VALUES | {"weights": "~/w", "teacher": "~/t.pt"}))
    settings = read_settings(LaddSettings, ["~/file.yaml", "--output=~/there"])
    assert (settings.weights, settings.teacher) == (tmp_path / "w", tmp_path / "t.pt")
    assert (settings.data, settings.output) == (Path("d"), tmp_path / "there")
    with pytest.raises(ValueError, match="file: data='~nobody-has-this-name/d': Could not determine home"):
        build(LaddSettings, VALUES | {"data": "~nobody-has-this-name/d"}, where="file")


def test_learning_rate_rises_and_falls():
    adam = AdamSettings(learning_rate=8.0, warmup=4, cooldown=2)
    assert [adam.rate(step, 8) for step in range(8)] == [2, 4, 6, 8, 8, 8, 8, 4]
    assert AdamSettings(learning_rate=8.0, warmup=0).rate(7, 8) == 8
