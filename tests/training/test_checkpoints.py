"""Checkpoints: a run that goes on is the uninterrupted one, and what is published from it loads."""

import json
import os
import shutil

import pytest
import torch
from helpers import TINY
from model_helpers import SMALL_DIT
from safetensors.torch import load_file
from training_helpers import run

from kandinsky.factory import get_T2V_pipeline
from kandinsky.training import checkpoints
from kandinsky.training.checkpoints import KEPT, Trained, generator_state, newest, set_generator_state
from kandinsky.training.ema import Ema
from kandinsky.training.settings import PretrainSettings


def test_resumed_equals_uninterrupted(whole_run, data, teacher, tmp_path):
    """Bit by bit; that samples were made meanwhile changes nothing."""
    kind, whole = whole_run
    run(kind, data, teacher, tmp_path, steps=2)
    parts = run(kind, data, teacher, tmp_path)
    for name in ("model", "ema", "optimiser"):
        one, other = (load_file(folder / f"{name}.safetensors") for folder in (whole, parts))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one), name
    before, after = (json.loads((folder / "progress.json").read_text()) for folder in (whole, parts))
    for name in ("step", "data", "generator", "ema_updates"):
        assert before[name] == after[name], name


def test_the_newest_are_kept(whole_run):
    folder = whole_run[1].parent
    assert whole_run[1] == newest(folder) == folder / "checkpoint-00000004"
    assert len(list(folder.glob("checkpoint-*"))) == KEPT


def test_older_ones_go_and_half_written_ones_do_not_count(data, teacher, tmp_path):
    (tmp_path / "checkpoint-00000009.partial").mkdir()
    run(PretrainSettings, data, teacher, tmp_path, steps=3, save_every=1)
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*[0-9]")) == [
        "checkpoint-00000002",
        "checkpoint-00000003",
    ]
    assert newest(tmp_path / "nothing") is None


def test_a_checkpoint_that_is_written_again_is_never_missing(whole_run, tmp_path, monkeypatch):
    """What stands there is not removed before the new one has its place."""
    target, replace = tmp_path / "checkpoint-00000004", os.replace
    shutil.copytree(whole_run[1], target)
    student = torch.nn.Linear(2, 2)
    optimiser = torch.optim.AdamW(student.parameters())
    trained = Trained(student, student, optimiser, Ema(student, 0.9))

    def refuse(old, new):
        if new == target and load_file(old / "ema.safetensors").keys() == {"weight", "bias"}:
            raise PermissionError("in use")
        replace(old, new)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", refuse)
        with pytest.raises(PermissionError):
            checkpoints.save(tmp_path, trained, {"step": 4}, is_main=True)
    assert load_file(target / "ema.safetensors").keys() == load_file(whole_run[1] / "ema.safetensors").keys()
    checkpoints.save(tmp_path, trained, {"step": 4}, is_main=True)
    assert load_file(target / "ema.safetensors").keys() == {"weight", "bias"}
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-00000004"]


@pytest.mark.parametrize("draws", [0, 5])
def test_a_generators_state_is_text(draws):
    generator = torch.Generator().manual_seed(3)
    torch.randn(draws, generator=generator)
    state = generator_state(generator)
    expected = torch.randn(4, generator=generator)
    other = torch.Generator()
    set_generator_state(other, json.loads(json.dumps(state)))
    assert torch.equal(torch.randn(4, generator=other), expected)


def test_a_pipeline_loads_the_averages(whole_run):
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, dit_path=whole_run[1] / "ema.safetensors", progress=False)
    assert pipe.dit.config == SMALL_DIT
