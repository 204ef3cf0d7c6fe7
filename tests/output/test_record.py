"""How a file was made, read out of it again, and made again."""

import json

import numpy as np
import pytest
import torch
from helpers import SMALL, own_weights
from PIL import Image

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.cli.main import main
from kandinsky.errors import RecordError
from kandinsky.output.read_record import read_record
from kandinsky.output.record import Record, differences

CALL = {"width": 64, "height": 64, "seed": 3}
NASTY = "a \"cat\" 'x'\n\r\n = ; # \\ \\n $(touch pwned) `id` | ../../etc/passwd %s \t\0 😀" + "😀" * 10_000


@pytest.mark.filterwarnings("ignore:prompt has")
@pytest.mark.parametrize("name", ["v.mp4", "v.mov", "v.mkv", "v.webm", "v.gif", "frames/", "i.png", "i.webp"])
def test_any_prompt_survives(pipe, tmp_path, name, monkeypatch):
    monkeypatch.chdir(tmp_path)
    image = name.startswith("i.")
    result = pipe(NASTY, name, time_length=0 if image else 1, output_type="file", **CALL)
    assert read_record(result.path).prompt == NASTY
    assert [path.name for path in tmp_path.iterdir()] == [name.rstrip("/")]


def test_record_tells_everything(pipe, tmp_path):
    result = pipe("a cat", tmp_path / "v.mp4", time_length=1, fps=12, crf=20, codec="hevc", **CALL)
    record = read_record(result.path)
    assert (record.seed, record.width, record.height, record.time_length) == (3, 64, 64, 1)
    assert (record.fps, record.crf, record.codec) == (12, 20, "hevc")
    assert record.torch == torch.__version__
    assert record.origin == pipe.origin
    assert not differences(record, pipe.origin)
    assert str(tmp_path) not in record.to_json()


def test_metadata_can_be_turned_off(pipe, tmp_path):
    result = pipe("a cat", tmp_path / "v.mp4", time_length=1, metadata=False, **CALL)
    with pytest.raises(RecordError, match="has no record"):
        read_record(result.path)
    assert b"a cat" not in result.path.read_bytes()


def test_files_without_a_record(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    for name in ("i.png", "v.mp4"):
        with pytest.raises(RecordError, match="has no record"):
            read_record(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_record(tmp_path / "nothing.mp4")
    for text in ("{}", "[]", "3", "not JSON"):
        with pytest.raises(RecordError, match="is not a record"):
            Record.from_json(text, "v.mp4")


def test_keys_of_later_versions_are_passed_over(pipe, tmp_path):
    record = read_record(pipe("a cat", tmp_path / "v.mp4", time_length=1, **CALL).path)
    assert Record.from_json(json.dumps({**json.loads(record.to_json()), "new": 1}), "v.mp4") == record


def test_fingerprint_tells_weights_apart(tmp_path):
    state = {"a": torch.arange(24.0).view(4, 6), "b": torch.tensor(1.0), "c": torch.zeros(0, 3)}
    seen = []
    for change in (lambda: None, lambda: state["a"][3, 5].add_(1), lambda: state.update(b=torch.tensor(2.0))):
        change()
        torch.save(state, tmp_path / "w.pt")
        seen.append(fingerprint(open_checkpoint(tmp_path / "w.pt")))
    assert len(set(seen)) == 3
    assert fingerprint(open_checkpoint(tmp_path / "w.pt")) == seen[-1]


def test_show_and_replay(pipe, small_weights, tmp_path, capsys):
    """The same bytes again, from the file alone; a difference in the weights is told."""
    made = pipe("a cat", tmp_path / "v.mp4", time_length=1, fps=5, crf=11, **CALL)
    assert main(["show", str(made.path)]) == 0
    assert "prompt: a cat\nseed: 3\n" in capsys.readouterr().out
    assert main(["replay", str(made.path), "--weights", str(small_weights), "--no-progress"]) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == made.path.read_bytes()
    said = capsys.readouterr()
    assert "v-replay.mp4: 9 frames of 64x64 at 5 fps, seed 3" in said.out
    assert "warning" not in said.err
    other = own_weights(tmp_path / "other", SMALL)
    (other / "kandinsky4_distil_512.pt").unlink()
    torch.save(random_dit(SIZES["tiny"].dit, torch.Generator().manual_seed(1)).state_dict(), other / SMALL.dit_file)
    target = ["--save-path", str(tmp_path / "w.mp4")]
    assert main(["replay", str(made.path), "--weights", str(other), "--no-progress", *target]) == 0
    assert "warning: the result may differ: weights: was" in capsys.readouterr().err


def test_folder_of_frames(pipe, tmp_path):
    frames = pipe("a cat", time_length=1, output_type="np", **CALL)
    result = pipe("a cat", f"{tmp_path}/frames/", time_length=1, **CALL)
    read = np.stack([np.asarray(Image.open(path)) for path in sorted(result.path.iterdir())])
    assert np.array_equal(read, frames)
