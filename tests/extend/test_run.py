"""Extensions: what is in the file, what a kill leaves, and what going on gives."""

import json
import shutil
import signal
from dataclasses import replace

import numpy as np
import pytest
from helpers import LONG, SMALL, fork_server, own_weights
from killed_process import extend_and_be_killed
from lora_helpers import plain_file

from kandinsky.cli.main import main
from kandinsky.errors import DecodeError, StoppedError
from kandinsky.extend.pieces import folder_of
from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.read_clip import read_clip
from kandinsky.output.read_record import read_record


@pytest.fixture(scope="module")
def short(tmp_path_factory):
    """Random weights that make 2 s at most, so that an extension has several pieces."""
    return own_weights(tmp_path_factory.mktemp("short"), replace(SMALL, max_seconds=2))


@pytest.fixture(scope="module")
def pipe(short):
    return get_T2V_pipeline("cpu", cache_dir=short, local_files_only=True, progress=False)


@pytest.fixture(scope="module")
def source():
    rows = np.linspace(0, 200, 11)[:, None, None, None] + np.zeros((1, 64, 64, 3))
    return rows.astype(np.uint8)


def frames(path):
    return read_clip(path, "video").frames((64, 64), "cover", fps=8, most=999)


ASKED = {"seconds": 2, "overlap": 1, "seed": 3, "crf": 1}


@pytest.fixture(scope="module")
def undisturbed(pipe, source, tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "v.mp4"
    return pipe.extend(source, "a cat", path, **ASKED)


def test_the_source_and_what_comes_after_it(undisturbed, source):
    assert undisturbed.num_frames == 11 + 2 * 8
    found = frames(undisturbed.path)
    assert len(found) == 27
    assert np.abs(found[:11].numpy().astype(int) - source).max() <= 2  # yuv420p of grey frames
    assert not folder_of(undisturbed.path).exists()
    assert [path.name for path in undisturbed.path.parent.iterdir()] == ["v.mp4"]


def test_the_record_has_every_seed(undisturbed):
    record = read_record(undisturbed.path)
    assert (record.prompt, record.time_length, record.seed) == ("a cat", 2, 3)
    assert record.given.seeds == [3, 4]
    assert record.given.overlap == 1
    assert record.given.inputs["video"]["name"] is None


def test_a_stopped_extension_goes_on(pipe, undisturbed, source, tmp_path):
    calls = []

    def stop(step, *_):
        calls.append(step)
        return len(calls) < 6

    with pytest.raises(StoppedError, match="to go on: kandinsky resume"):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED, on_step=stop)
    assert sorted(path.name for path in (tmp_path / "v.mp4.pieces").iterdir()) == ["3.safetensors", "extension.json"]
    assert not (tmp_path / "v.mp4").exists()
    calls.clear()
    pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED, on_step=lambda step, *_: calls.append(step))
    assert calls == [1, 2, 3, 4]  # of the second piece alone
    assert (tmp_path / "v.mp4").read_bytes() == undisturbed.path.read_bytes()


def test_another_extension_there_is_not_touched(pipe, source, tmp_path):
    with pytest.raises(StoppedError):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED, on_step=lambda *_: False)
    with pytest.raises(ValueError, match="another extension is unfinished there"):
        pipe.extend(source, "a dog", tmp_path / "v.mp4", **ASKED)


@pytest.fixture
def adapted(pipe, tmp_path):
    """The pipeline with one file of low-rank weights under two names; and the file."""
    file = plain_file(tmp_path / "one.safetensors")
    pipe.load_lora_weights(file, "a", 0.5)
    pipe.load_lora_weights(file, "b", 0.25)
    yield pipe, file
    pipe.unload_lora_weights()


def test_other_low_rank_weights_do_not_go_on(adapted, source, tmp_path):
    pipe, _ = adapted
    with pytest.raises(StoppedError):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED, on_step=lambda *_: False)
    pipe.set_adapters("a")
    with pytest.raises(ValueError, match=r"loras=.*'1.0'.*: .*v.mp4.pieces was begun with .*'0.5'.*'0.25'"):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED)


@pytest.mark.slow
def test_low_rank_weights_are_asked_for(adapted, short, undisturbed, tmp_path, capsys):
    pipe, file = adapted
    shutil.copy(undisturbed.path, tmp_path / "source.mp4")
    call = (tmp_path / "source.mp4", "a cat", tmp_path / "v.mp4")
    whole = pipe.extend(*call, seconds=1, seed=3).path.read_bytes()
    run = ["--weights", str(short), "--no-progress", "--quiet"]
    assert main(["replay", str(tmp_path / "v.mp4"), *run]) == 2
    assert "made with the LoRA 'a'" in capsys.readouterr().err
    assert main(["replay", str(tmp_path / "v.mp4"), *run, "--lora", str(file)]) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == whole
    with pytest.raises(StoppedError):
        pipe.extend(*call, seconds=1, seed=3, on_step=lambda *_: False)
    assert main(["resume", str(tmp_path / "v.mp4.pieces"), *run]) == 2
    assert main(["resume", str(tmp_path / "v.mp4.pieces"), *run, "--lora", str(file)]) == 0
    assert (tmp_path / "v.mp4").read_bytes() == whole


def test_a_damaged_piece_is_named(pipe, source, tmp_path):
    with pytest.raises(StoppedError):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED, on_step=lambda *_: False)
    (tmp_path / "v.mp4.pieces" / "3.safetensors").write_bytes(b"cut off")
    with pytest.raises(DecodeError, match=r"3.safetensors is damaged"):
        pipe.extend(source, "a cat", tmp_path / "v.mp4", **ASKED)


@pytest.mark.slow
def test_killed_and_resumed_is_the_same_as_undisturbed(pipe, short, undisturbed, tmp_path, capsys):
    shutil.copy(undisturbed.path, tmp_path / "source.mp4")
    process = fork_server().Process(target=extend_and_be_killed, args=(tmp_path, short))
    process.start()
    process.join(LONG)
    assert process.exitcode == -signal.SIGKILL
    pieces = tmp_path / "v.mp4.pieces"
    assert (pieces / "3.safetensors").exists()
    whole = pipe.extend(tmp_path / "source.mp4", "a cat", tmp_path / "whole.mp4", seconds=2, seed=3)
    assert main(["resume", str(pieces), "--weights", str(short), "--no-progress", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["num_frames"] == 27 + 16
    assert not pieces.exists()
    assert (tmp_path / "v.mp4").read_bytes() == whole.path.read_bytes()
    # and the same again from the record alone
    assert main(["replay", str(tmp_path / "v.mp4"), "--weights", str(short), "--no-progress", "--quiet"]) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == whole.path.read_bytes()
    (tmp_path / "source.mp4").rename(tmp_path / "moved.mp4")
    replay = ["replay", str(tmp_path / "v.mp4"), "--weights", str(short), "--no-progress", "--quiet"]
    assert main(replay) == 2
    assert "name the file with --video" in capsys.readouterr().err
    assert main([*replay, "--video", str(tmp_path / "whole.mp4")]) == 2
    assert "has other pixels" in capsys.readouterr().err
