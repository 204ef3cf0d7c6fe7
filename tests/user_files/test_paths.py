"""`~` in paths, in calls and on command lines."""

from argparse import ArgumentParser
from pathlib import Path

import pytest

from kandinsky.user_files.paths import path_argument, user_path


def test_a_path_of_a_user(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert user_path("~/v.mp4", "x") == tmp_path / "v.mp4"
    assert user_path(Path("a/~"), "x") == Path("a/~")
    for wrong in (b"v.mp4", None, 3):
        with pytest.raises(ValueError, match=r"x=.*: allowed is a path of text"):
            user_path(wrong, "x")
    with pytest.raises(ValueError, match=r"x='~nobody-has-this-name/v\.mp4': Could not determine home"):
        user_path("~nobody-has-this-name/v.mp4", "x")


def test_a_path_on_a_command_line(monkeypatch, tmp_path, capsys):
    """As in `--weights=~/w`, which no shell expands."""
    monkeypatch.setenv("HOME", str(tmp_path))
    parser = ArgumentParser()
    parser.add_argument("--weights", type=path_argument)
    assert parser.parse_args(["--weights=~/w"]).weights == tmp_path / "w"
    assert parser.parse_args(["--weights", "w/"]).weights == Path("w")
    with pytest.raises(SystemExit) as end:
        parser.parse_args(["--weights", "~nobody-has-this-name/w"])
    assert end.value.code == 2
    assert "argument --weights: path='~nobody-has-this-name/w': Could not determine home" in capsys.readouterr().err
