"""The commands that write weights."""

import json

import pytest
import torch
from checkpoint_helpers import tiny_copy
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.cli.main import main

CPU = torch.device("cpu")


def test_random_weights_are_those_in_the_repository(tmp_path, capsys):
    assert main(["random-weights", "tiny", str(tmp_path / "w")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "w")
    files = sorted(path.relative_to(TINY) for path in TINY.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path / "w") for path in (tmp_path / "w").rglob("*") if path.is_file())
    for name in ("kandinsky4_distil_512.pt", "vae", "text_encoder"):
        ours, made = (open_checkpoint(folder / name) for folder in (TINY, tmp_path / "w"))
        assert ours.shapes == made.shapes
        assert all(torch.equal(ours.tensor(key, CPU), made.tensor(key, CPU)) for key in ours.shapes)
    assert (TINY / "tokenizer/spiece.model").read_bytes() == (tmp_path / "w/tokenizer/spiece.model").read_bytes()


def test_convert_says_where_the_copy_is(tmp_path, capsys):
    weights = tiny_copy(tmp_path / "w")
    assert main(["convert", "--weights", str(weights), "--no-progress"]) == 0
    output = capsys.readouterr()
    copy = weights / "kandinsky4_distil_512.safetensors"
    assert output.out.strip() == str(copy)
    assert copy.is_file()
    assert main(["convert", "--weights", str(weights), "--precision", "fast", "--json", "--quiet"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == {"status": "done", "exit_code": 0, "path": str(weights / "kandinsky4_distil_512_fast.safetensors")}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["convert", "--weights", "/nowhere"], 1, "not found"),
        (["convert", "--precision", "half"], 2, "invalid choice: 'half'"),
        (["convert", "--device", "gpu"], 2, "device='gpu' is not a device"),
        (["random-weights", "tiny", "/nowhere/x", "--device", "gpu"], 2, "device='gpu' is not a device"),
        (["random-weights", "tiny", "/nowhere/x", "--device", "cuda:99"], 2, "device='cuda:99' does not exist"),
        (["random-weights", "huge", "x"], 2, "invalid choice: 'huge'"),
        (["random-weights", "tiny"], 2, "required: folder"),
    ],
)
def test_what_is_refused(arguments, code, message, capsys):
    assert main(arguments) == code
    assert message in capsys.readouterr().err
