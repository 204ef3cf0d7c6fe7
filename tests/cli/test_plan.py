"""`kandinsky plan`: what fits, without loading weights."""

import json

import pytest
import torch
from audio_helpers import save_small
from helpers import SMALL, TINY, own_weights

from kandinsky.cli.main import main
from kandinsky.memory.planner import LADDER, STAGES
from kandinsky.memory.sound import ENCODER_BYTES

ASKED = ["plan", "--weights", str(TINY), "--host-memory", "8", "--time-length", "1"]


def test_what_fits(capsys):
    assert main([*ASKED, "--gpu-memory", "6"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "672x384, 1 s, exact; GB of 10^9 bytes on the GPU:"
    assert lines[-1].startswith("chosen: resident: this needs")
    assert len(lines) == 2 + 2 * len(LADDER) + 1


def test_as_json(capsys):
    assert main([*ASKED, "--gpu-memory", "6", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["status"], shown["exit_code"], shown["chosen"]) == ("done", 0, "resident")
    assert len(shown["bytes"]) == 2 * len(LADDER)
    assert set(shown["bytes"]["blocks"]["gpu"]) == {"load", *STAGES}
    assert shown["bytes"]["blocks"]["host"] > shown["bytes"]["resident"]["host"] == 0


def test_sound(tmp_path, capsys):
    weights = save_small(own_weights(tmp_path / "w", SMALL))
    asked = ["plan", "--weights", str(weights), "--gpu-memory", "6", "--host-memory", "8", "--sound"]
    assert main(asked) == 0
    models, encoder = capsys.readouterr().out.splitlines()[-2:]
    assert models.startswith("sound: ")
    assert models.endswith(" GB, fits once the video is made")
    assert encoder.startswith("sound with its encoder: ")
    assert encoder.endswith(" GB, does not fit once the video is made")
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["sound"]
    assert found["sound with its encoder"] - found["sound"] == ENCODER_BYTES


def test_weights_have_a_length_and_a_size_of_their_own(tmp_path, capsys):
    weights = own_weights(tmp_path / "w", SMALL)
    assert main(["plan", "--weights", str(weights), "--gpu-memory", "6", "--host-memory", "8"]) == 0
    assert capsys.readouterr().out.startswith("64x64, 12 s, exact")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu-memory", "0.01"], "nothing fits in 0.0 GB of GPU"),
        (["--gpu-memory", "6", "--time-length", "99"], "time_length=99"),
        (["--gpu-memory", "6", "--width", "100"], "width=100, height=384"),
        (["--gpu-memory", "much"], "--gpu-memory: invalid float value: 'much'"),
        (["--gpu-memory", "6", "--precision", "half"], "invalid choice: 'half'"),
    ],
)
def test_what_is_refused(arguments, message, capsys):
    assert main([*ASKED, *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_a_machine_without_a_gpu_is_asked_for_its_size(capsys):
    assert main(ASKED) == 2
    assert "--gpu-memory is needed on a machine without a CUDA device" in capsys.readouterr().err


def test_weights_that_are_missing(tmp_path, capsys):
    assert main(["plan", "--weights", str(tmp_path), "--gpu-memory", "6"]) == 1
    assert "weights are missing in" in capsys.readouterr().err
