"""One command from a folder of clips to a file: what it refuses before the model is loaded, and a whole run."""

from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, SMALL, TINY, own_weights

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import linears_of, read_lora
from kandinsky.output.video import VideoWriter
from kandinsky.training.quick_lora import main


def video(path: Path, frames: int) -> None:
    shade = np.linspace(0, 255, frames).astype(np.uint8)
    with VideoWriter(path, width=64, height=64, fps=8) as writer:
        writer.write(np.broadcast_to(shade[:, None, None, None], (frames, 64, 64, 3)).copy())
        writer.finish()


@pytest.fixture
def folder(tmp_path):
    """Two clips of a second, their captions beside them."""
    clips = tmp_path / "clips"
    clips.mkdir()
    for name in "ab":
        video(clips / f"{name}.mp4", 9)
        (clips / f"{name}.txt").write_text("it grows brighter\n")
    return clips


def arguments(folder, tmp_path, **changes):
    weights = own_weights(tmp_path / "weights", SMALL)
    given = {"data": folder, "out": tmp_path / "lora.safetensors", "weights": weights, "steps": 1, "rank": 2}
    given |= {"seconds": 1} | changes
    return [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def refused(call, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(call)
    return stopped.value.code, capsys.readouterr().err


@pytest.mark.slow
def test_a_folder_becomes_a_file(folder, tmp_path):
    main(arguments(folder, tmp_path))
    lora = read_lora(
        tmp_path / "lora.safetensors", linears_of(open_checkpoint(TINY / "kandinsky4_distil_512.pt").shapes)
    )
    assert len(lora.layers) == 16


@pytest.mark.slow
def test_one_clip_is_refused_for_ladd_and_taken_for_velocity(folder, tmp_path, capsys):
    (folder / "b.txt").unlink()
    code, said = refused(arguments(folder, tmp_path), capsys)
    assert code == 2
    assert "batch_size=2: there are 1 clips of one size and length at most; allowed is 2 to that many" in said
    main(arguments(folder, tmp_path, objective="velocity", batch_size=1))
    assert (tmp_path / "lora.safetensors").is_file()


def test_clips_that_are_too_short_are_refused(folder, tmp_path, capsys):
    for name in "ab":
        (folder / f"{name}.mp4").unlink()
        video(folder / f"{name}.mp4", 3)
    code, said = refused(arguments(folder, tmp_path), capsys)
    assert code == 2
    assert "too short: it is 0.375 s long" in said
    assert "there are 0 clips of one size and length at most; 2 were skipped" in said


def test_no_captions(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, said = refused(arguments(tmp_path / "empty", tmp_path), capsys)
    assert code == 1
    assert "no such file, nor a caption in a .txt beside a video" in said


def test_weights_that_are_not_there(folder, tmp_path, capsys):
    code, said = refused(arguments(folder, tmp_path, weights=tmp_path / "nowhere"), capsys)
    assert code == 1
    assert "is not there" in said


def test_arguments_are_checked_first(folder, tmp_path, capsys):
    code, said = refused(arguments(folder, tmp_path, batch_size=1), capsys)
    assert (code, "batch_size=1: allowed is 2 and more" in said) == (2, True)


def test_what_to_begin_with_is_read_before_clips_are(folder, tmp_path, capsys):
    striped = ROOT / "weights" / "tiny" / "lora" / "striped.safetensors"
    code, said = refused(arguments(folder, tmp_path, initial=striped), capsys)
    assert (code, "striped.safetensors does not fit: for no Linear of this model" in said) == (1, True)
    code, said = refused(arguments(folder, tmp_path, initial=tmp_path / "nothing.safetensors"), capsys)
    assert (code, "LoRA not found" in said) == (1, True)
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "weights"}


def test_a_plan_writes_nothing(folder, tmp_path, capsys):
    main([*arguments(folder, tmp_path, seconds=2), "--plan"])
    assert capsys.readouterr().out.startswith("clips of 2 s: ")
    assert {path.name for path in tmp_path.iterdir()} == {"clips", "weights"}
