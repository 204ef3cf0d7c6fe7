"""The command line: what it makes, what it says, how it ends."""

import re
import subprocess
import sys

import pytest
import torch
from helpers import ROOT, TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.cli.main import generate_main, main

CPU = torch.device("cpu")
SCRIPT = [sys.executable, str(ROOT / "run_inference_distil.py")]
ON_CPU = ["--weights", str(TINY), "--device", "cpu", "--no-progress"]


def test_help_shows_the_published_demo():
    output = subprocess.run([*SCRIPT, "--help"], capture_output=True, text=True, check=True).stdout
    said = " ".join(output.split())
    for expected in (
        "wooly mammoths",
        "default: 672",
        "default: 384",
        "default: 12",
        "default: 42",
        "default: cuda)",
        "test.mp4",
    ):
        assert expected in said


def test_module_and_script_take_the_same_arguments(capsys):
    shown = []
    for command, arguments in ((generate_main, ["--help"]), (main, ["generate", "--help"])):
        with pytest.raises(SystemExit, match="0"):
            command(arguments)
        shown.append(set(re.findall(r"--[a-z-]+", capsys.readouterr().out)))
    assert shown[0] == shown[1]
    assert {"--prompts", "--json", "--crf", "--parallelism"} <= shown[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--time-length", "64"], "time_length=64: allowed is 0"),
        (["--width", "100"], "width=100, height=384"),
        (["--seed", "-1"], "seed=-1"),
        (["--save-path", "v.txt"], "must end with one of .mp4"),
        (["--save-path", "v.mp4", "--time-length", "0"], "must end with one of .png"),
        (["--device", "cuda:99"], "device_map='cuda:99' does not exist on this machine"),
    ],
)
def test_bad_arguments(arguments, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert generate_main([*ON_CPU, *arguments]) == 2
    assert message in capsys.readouterr().err


def test_missing_weights(tmp_path, capsys):
    (tmp_path / "weights").mkdir()
    dit = tmp_path / "weights" / "kandinsky4_distil_512.pt"
    dit.write_bytes(b"not a checkpoint")
    for name in ("vae", "text_encoder", "tokenizer", "scheduler"):
        (tmp_path / "weights" / name).symlink_to(TINY / name)
    target = ["--save-path", str(tmp_path / "v.mp4")]
    assert generate_main([*ON_CPU, *target, "--weights", str(tmp_path / "weights")]) == 1
    assert "kandinsky4_distil_512.pt is truncated or not a PyTorch state dict" in capsys.readouterr().err


def test_random_weights_are_those_in_the_repository(tmp_path):
    assert main(["random-weights", "tiny", str(tmp_path / "w")]) == 0
    files = sorted(path.relative_to(TINY) for path in TINY.rglob("*") if path.is_file())
    made = [path.relative_to(tmp_path / "w") for path in (tmp_path / "w").rglob("[!.]*") if path.is_file()]
    assert files == sorted(made)
    for name in ("kandinsky4_distil_512.pt", "vae", "text_encoder"):
        ours, made = (open_checkpoint(folder / name) for folder in (TINY, tmp_path / "w"))
        assert ours.shapes == made.shapes
        assert all(torch.equal(ours.tensor(key, CPU), made.tensor(key, CPU)) for key in ours.shapes)
    assert (TINY / "tokenizer/spiece.model").read_bytes() == (tmp_path / "w/tokenizer/spiece.model").read_bytes()
