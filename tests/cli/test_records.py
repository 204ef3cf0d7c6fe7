"""`show`, `replay` and `resume` refuse what they cannot do before a weight is read."""

import json

import pytest
import torch
from helpers import TINY

from kandinsky.cli.main import main
from kandinsky.output.record import Record
from kandinsky.output.unfinished import Unfinished, save_unfinished

RECORD = Record(prompt="a cat", seed=3, width=64, height=64, time_length=1, fps=8, crf=5, codec="h264", origin=None)


@pytest.fixture
def latents(tmp_path):
    unfinished = Unfinished(
        latents=torch.zeros(3, 8, 8, 16), record=RECORD, save_path=tmp_path / "v.mp4", metadata=True, vae=None
    )
    return save_unfinished(unfinished)


def test_show_prints_a_record(latents, capsys):
    assert main(["show", str(latents)]) == 0
    assert "prompt: a cat\nseed: 3\n" in capsys.readouterr().out
    assert main(["show", str(latents), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["codec"] == "h264"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resume", "{latents}"], 2, "does not name its weights; name their folder with --weights"),
        (["resume", "{latents}", "--weights", "/nowhere", "--device", "cpu"], 1, "no VAE at /nowhere/vae"),
        (["resume", "{latents}", "--weights", str(TINY), "--save-path", "/nowhere/v.mp4"], 2, "does not exist"),
        (["resume", "{latents}", "--weights", str(TINY), "--save-path", "v.txt"], 2, "must end with one of"),
        (["resume", "{folder}/gone"], 1, "no such file"),
        (["resume", "{damaged}"], 1, "is damaged or was not saved by this library"),
        (["replay", "{latents}"], 2, "name a file for the video with --save-path"),
        (["replay", "{damaged}", "--save-path", "v.mp4"], 1, "is damaged"),
        (["show", "{folder}"], 1, "has no record of a generation"),
        (["show", "{folder}/gone.mp4"], 1, "no such file"),
    ],
)
def test_what_is_refused(latents, tmp_path, capsys, arguments, code, message):
    damaged = tmp_path / "x.latents.safetensors"
    damaged.write_bytes(b"nothing")
    places = {"latents": latents, "folder": tmp_path, "damaged": damaged}
    before = sorted(tmp_path.iterdir())
    assert main([argument.format(**places) for argument in arguments]) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == before
