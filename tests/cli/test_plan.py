"""`kandinsky plan` answers without reading a weight."""

import json

import pytest
import torch
from helpers import TINY

from kandinsky.cli.main import main
from kandinsky.memory.planner import LADDER

ARGUMENTS = ["plan", "--weights", str(TINY), "--host-memory", "8", "--time-length", "1"]


def test_a_row_for_each_mode(capsys):
    assert main([*ARGUMENTS, "--gpu-memory", "6"]) == 0
    output = capsys.readouterr().out
    assert "672x384, 1 s, exact" in output
    assert "chosen: resident: this needs" in output
    assert len(output.splitlines()) == 2 + 2 * len(LADDER) + 1


def test_as_json(capsys):
    assert main([*ARGUMENTS, "--gpu-memory", "6", "--precision", "fast", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["chosen"] == "resident"
    assert len(shown["bytes"]) == 2 * len(LADDER)
    assert all(peak > 0 for row in shown["bytes"].values() for peak in row["gpu"].values())


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_refused(capsys):
    assert main(ARGUMENTS) == 2
    assert "--gpu-memory is needed on a machine without a CUDA device" in capsys.readouterr().err
    assert main(["plan", "--weights", "/nowhere", "--gpu-memory", "6"]) == 1
    assert "weights are missing" in capsys.readouterr().err
