"""Pictures and videos of a command, and where those of a record are looked for."""

import argparse
import dataclasses

import pytest
from fakes import RECORD

from kandinsky.cli.inputs import add_input_arguments, check_same, input_settings, inputs_again
from kandinsky.known.given import Mark
from kandinsky.output.record import GivenRecord


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    add_input_arguments(parser)
    return parser.parse_args(arguments)


def made_with(name="p.png", **changes):
    given = GivenRecord(inputs={"image": {"name": name, "sha256": "ab" * 32}}, **changes)
    return dataclasses.replace(RECORD, given=given)


def test_only_what_was_given_is_a_setting():
    assert input_settings(parsed()) == {}
    found = input_settings(parsed("--image", "p.png", "--strength", "0.5", "--fit", "contain"))
    assert found == {"image": "p.png", "strength": 0.5, "fit": "contain"}


def test_inputs_are_looked_for_here_then_beside_the_file(tmp_path, monkeypatch):
    here, beside = tmp_path / "here", tmp_path / "beside"
    here.mkdir()
    beside.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(ValueError, match=r"image 'p.png' .* not here: name the file with --image"):
        inputs_again(made_with(), parsed(), beside)
    (beside / "p.png").touch()
    assert inputs_again(made_with(fit="cover"), parsed(), beside).image == str(beside / "p.png")
    (here / "p.png").touch()
    assert inputs_again(made_with(), parsed(), beside).image == "p.png"
    (here / "q.png").touch()
    assert inputs_again(made_with(), parsed("--image", "q.png"), beside).image == "q.png"


def test_pixels_must_be_named(tmp_path):
    with pytest.raises(ValueError, match="image given as pixels"):
        inputs_again(made_with(None), parsed(), tmp_path)


def test_a_record_without_inputs_asks_for_none(tmp_path):
    assert inputs_again(RECORD, parsed(), tmp_path).image is None


def test_other_pixels_are_refused():
    check_same(made_with(), {"image": Mark("p.png", "ab" * 32)})
    check_same(RECORD, {})
    with pytest.raises(ValueError, match="image has other pixels"):
        check_same(made_with(), {"image": Mark("p.png", "cd" * 32)})
