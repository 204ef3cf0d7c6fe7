"""`--lora FILE[:WEIGHT]`."""

import argparse

import pytest

from kandinsky.cli.loras import add_lora_argument, loras_of


def parsed(*given):
    parser = argparse.ArgumentParser()
    add_lora_argument(parser)
    return parser.parse_args([part for file in given for part in ("--lora", file)])


def test_files_and_weights(tmp_path, monkeypatch):
    for name in ("one", "two", "a:b"):
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loras_of(parsed()) == {}
    assert loras_of(parsed("one", "two:0.5", "a:b")) == {"one": 1.0, "two": 0.5, "a:b": 1.0}
    assert loras_of(parsed("~/one:-1")) == {f"{tmp_path}/one": -1.0}


def test_what_is_refused(tmp_path):
    (tmp_path / "one").touch()
    with pytest.raises(ValueError, match="is given twice"):
        loras_of(parsed(f"{tmp_path}/one", f"{tmp_path}/one:0.5"))
    with pytest.raises(ValueError, match="there is no file or folder"):
        loras_of(parsed(f"{tmp_path}/none:0.5"))
