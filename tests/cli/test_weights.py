"""The commands that write weights."""

import shutil

import pytest
from helpers import TINY

from kandinsky.cli.main import main


def test_convert_says_where_the_copy_is(tmp_path, capsys):
    weights = shutil.copytree(TINY, tmp_path / "w")
    assert main(["convert", "--weights", str(weights), "--no-progress"]) == 0
    assert capsys.readouterr().out.strip() == str(weights / "kandinsky4_distil_512.safetensors")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "--weights", "/nowhere"], 1, "not found"),
        (["convert", "--precision", "half"], 2, "invalid choice: 'half'"),
        (["convert", "--device", "gpu"], 2, "device='gpu' is not a device"),
        (["random-weights", "huge", "x"], 2, "invalid choice: 'huge'"),
    ],
)
def test_what_is_refused(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err
