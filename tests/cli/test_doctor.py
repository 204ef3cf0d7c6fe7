"""`kandinsky doctor`: what runs here, and whether a video could be made."""

import json
from pathlib import Path

import pytest
from helpers import TINY

from kandinsky.cli import facts
from kandinsky.cli.main import main

ASKED = ["doctor", "--device", "cpu"]


def test_a_machine_that_can(capsys):
    assert main([*ASKED, "--weights", str(TINY)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "system:"
    assert "  taken: torch" in lines
    assert lines[-1] == "a video can be made here"


def test_as_json(capsys):
    assert main([*ASKED, "--weights", str(TINY), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["problems"], shown["device"]) == ("done", [], "cpu")
    assert set(shown) >= {"system", "gpus", "tools", "weights", "attention", "memory mode"}


def test_missing_weights(tmp_path, capsys):
    assert main([*ASKED, "--weights", str(tmp_path)]) == 1
    assert "a video cannot be made here: weights: dit: " in capsys.readouterr().out


def test_missing_ffmpeg(monkeypatch, capsys):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "/nowhere/ffmpeg")
    assert main([*ASKED, "--weights", str(TINY)]) == 1
    assert capsys.readouterr().out.splitlines()[-1].startswith("a video cannot be made here: ffmpeg: no: ")


def test_a_host_without_room_for_the_weights(monkeypatch, capsys):
    monkeypatch.setattr(facts, "available_host", lambda: 10**6)
    assert main([*ASKED, "--weights", str(TINY)]) == 1
    assert "a video cannot be made here: memory mode: NothingFits: everything stays on" in capsys.readouterr().out


def test_a_precision_that_does_not_run_here(capsys):
    assert main([*ASKED, "--weights", str(TINY), "--precision", "fast"]) == 1
    assert "precision='fast' needs a CUDA device" in capsys.readouterr().out


def test_a_fact_that_cannot_be_had_is_a_problem_and_no_traceback(monkeypatch, capsys):
    def broken(*_):
        raise KeyError("driver")

    monkeypatch.setattr(facts, "attention", broken)
    assert main([*ASKED, "--weights", str(TINY)]) == 1
    assert "attention: KeyError: 'driver'" in capsys.readouterr().out


@pytest.mark.parametrize("form", ["--json", "--quiet"])
def test_nothing_of_the_users_home_is_told(tmp_path, monkeypatch, capsys, form):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    main([*ASKED, "--weights", str(tmp_path / "film" / "weights"), form])
    captured = capsys.readouterr()
    assert str(tmp_path) not in captured.out + captured.err


def test_a_device_that_is_none(capsys):
    assert main(["doctor", "--device", "abacus"]) == 2
    assert "'abacus' is not a device" in capsys.readouterr().err


def test_retune_forgets(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "kandinsky4").mkdir()
    (tmp_path / "kandinsky4" / "attention.json").write_text("{}")
    assert main([*ASKED, "--weights", str(TINY), "--retune", "--quiet"]) == 0
    assert not list((tmp_path / "kandinsky4").iterdir())
