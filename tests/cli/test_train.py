"""`kandinsky train-lora`: the trainer's own process, help and exit code."""

import json
from pathlib import Path

import pytest
from helpers import TINY

from kandinsky.cli.main import main
from kandinsky.cli.train import train_lora


@pytest.mark.slow
def test_the_exit_code_is_the_trainer_s(tmp_path, capfd):
    assert (
        main(["train-lora", "--data", str(tmp_path), "--out", str(tmp_path / "a.safetensors"), "--weights", str(TINY)])
        == 1
    )
    assert "captions.jsonl: no such file, nor a caption in a .txt" in capfd.readouterr().err
    assert train_lora(["--help"]) == 0
    assert "--objective" in capfd.readouterr().out


def test_the_command_is_listed(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "train-lora" in capsys.readouterr().out


def test_nothing_is_imported_for_it():
    assert json.dumps("kandinsky.training") not in Path(train_lora.__code__.co_filename).read_text()
