"""Which attention was the fastest here, from one process to the next."""

import json
import logging
from pathlib import Path

import pytest
import torch

from kandinsky.loading import remembered
from kandinsky.loading.remembered import NAME, driver_version, forget, key_of, remembered_or_fastest, user_cache
from kandinsky.model.attention import TORCH, Attention, torch_sdpa
from kandinsky.model.attention_choice import Trial

CPU = torch.device("cpu")
OTHER = Attention("other", lambda qkv: torch_sdpa(qkv) * 1.0)


@pytest.fixture
def ask(monkeypatch, tmp_path):
    """Asks in a folder of its own; `ask.fast` is which backend the clock finds the faster, `ask.tried` what was."""

    def trials(backends, **_settings):
        ask.tried.append([backend.name for backend in backends])
        return [
            Trial(backend, error="broken", passing=ask.passing)
            if backend.name in ask.broken
            else Trial(backend, milliseconds=1.0 if backend.name == ask.fast else 1.01)
            for backend in backends
        ]

    def ask(backends=(TORCH, OTHER)):
        return remembered_or_fastest(list(backends), device=CPU, head_dim=64, folder=tmp_path / "cache").name

    ask.fast, ask.tried, ask.broken, ask.folder = "torch", [], (), tmp_path / "cache"
    ask.passing = False
    monkeypatch.setattr(remembered, "trials", trials)
    return ask


def test_a_near_tie_does_not_flip(ask):
    assert ask() == "torch"
    ask.fast = "other"
    assert ask() == "torch"
    assert ask.tried == [["torch", "other"], ["torch"]]


def test_forgotten_it_is_measured_again(ask):
    ask()
    forget(ask.folder)
    forget(ask.folder)
    ask.fast = "other"
    assert ask() == "other"


def test_other_candidates_are_another_question(ask):
    ask()
    ask.fast = "other"
    assert ask((OTHER,)) == "other"
    assert len(json.loads((ask.folder / NAME).read_text())) == 2


@pytest.mark.parametrize("content", ["", "{", "[1]", "null", '{"x": 3}', "\x00"])
def test_a_damaged_file_is_none(ask, content):
    ask.folder.mkdir()
    (ask.folder / NAME).write_text(content)
    assert ask() == "torch"
    ask.fast = "other"
    assert ask() == "torch"


def test_what_does_not_run_any_more_is_measured_again(ask):
    ask.fast = "other"
    assert ask() == "other"
    ask.broken, ask.fast = ("other",), "torch"
    assert ask() == "torch"
    ask.broken = ()
    assert ask() == "torch"


def test_what_a_full_gpu_allows_is_not_for_good(ask):
    ask.fast, ask.broken, ask.passing = "other", ("other",), True
    assert ask() == "torch"
    ask.broken = ()
    assert ask() == "other"
    ask.broken = ("other",)
    assert ask() == "torch"
    ask.broken = ()
    assert ask() == "other"


def test_a_name_that_no_backend_has_is_measured_again(ask):
    ask.folder.mkdir()
    (ask.folder / NAME).write_text(json.dumps({key_of(["torch", "other"], device=CPU, head_dim=64): "gone"}))
    assert ask() == "torch"


def test_a_process_that_was_faster_is_followed(ask, monkeypatch):
    """Between the measuring here and the writing."""
    key, trials = key_of(["torch", "other"], device=CPU, head_dim=64), remembered.trials

    def slow(*arguments, **settings):
        ask.folder.mkdir(exist_ok=True)
        (ask.folder / NAME).write_text(json.dumps({key: "other"}))
        return trials(*arguments, **settings)

    monkeypatch.setattr(remembered, "trials", slow)
    assert ask() == "other"


def test_a_folder_that_cannot_be_written_costs_only_the_memory(ask, caplog):
    ask.folder.write_text("a file")
    with caplog.at_level(logging.INFO):
        assert ask() == "torch"
    assert "not remembered" in caplog.text


def test_where_it_is():
    home = Path.home()
    assert user_cache({}, platform="linux") == home / ".cache/kandinsky4"
    assert user_cache({"XDG_CACHE_HOME": "/c"}, platform="linux") == Path("/c/kandinsky4")
    assert user_cache({"XDG_CACHE_HOME": "not absolute"}, platform="linux") == home / ".cache/kandinsky4"
    assert user_cache({}, platform="darwin") == home / "Library/Caches/kandinsky4"
    assert user_cache({}, platform="win32") == home / "AppData/Local/kandinsky4"


def test_what_it_depends_on(monkeypatch):
    here = key_of(["torch"], device=CPU, head_dim=64)
    assert torch.__version__ in here
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert key_of(["torch"], device=CPU, head_dim=64) != here
    assert driver_version() is None or driver_version()
