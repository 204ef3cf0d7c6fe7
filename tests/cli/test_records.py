"""`show`, `replay` and `resume`: what they make, and that they refuse what they cannot do before a weight is read."""

import dataclasses
import json
import shutil
from contextlib import nullcontext

import pytest
import torch
from fakes import FAILS_AT_THE_END, RECORD, SMALL_LATENTS, ffmpeg_script
from helpers import SMALL, TINY, own_weights
from lora_helpers import plain_file

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.cli.main import main
from kandinsky.errors import DecodeError
from kandinsky.output.read_record import read_record
from kandinsky.output.unfinished import Unfinished, VaeSource, save_unfinished

CALL = {"width": 64, "height": 64, "seed": 3}


@pytest.fixture
def latents(tmp_path):
    """A file of latents that does not name its weights."""
    return save_unfinished(
        Unfinished(latents=SMALL_LATENTS, record=RECORD, save_path=tmp_path / "v.mp4", metadata=True, vae=None)
    )


def test_show_prints_a_record(latents, pipe, tmp_path, capsys):
    assert main(["show", str(latents)]) == 0
    shown = capsys.readouterr().out
    assert "prompt: a cat\nseed: 3\nwidth: 64\n" in shown
    assert "origin" not in shown
    image = pipe("a dog", tmp_path / "i.png", time_length=0, **CALL).path
    assert main(["show", str(image)]) == 0
    shown = capsys.readouterr().out
    assert "prompt: a dog\n" in shown
    assert "devices: dit cpu, vae cpu, text_embedder cpu\n" in shown
    assert "crf" not in shown  # which an image has not
    assert main(["show", str(latents), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["record"]["codec"] == "h264"


def test_replay_makes_the_same_bytes(pipe, small_weights, tmp_path, capsys):
    """From the file alone."""
    made = pipe("a cat", tmp_path / "v.mp4", time_length=1, fps=5, crf=11, **CALL)
    assert main(["replay", str(made.path), "--weights", str(small_weights), "--no-progress"]) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == made.path.read_bytes()
    said = capsys.readouterr()
    assert "v-replay.mp4: 9 frames of 64x64 at 5 fps, seed 3" in said.out
    assert said.err == ""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "target", "seconds"),
    [("i.png", None, 0), ("frames/", None, 1), ("v.mp4", "w.webm", 1), ("v.gif", "w.mp4", 1)],
)
def test_replay_of_other_kinds(pipe, small_weights, tmp_path, capsys, name, target, seconds):
    made = pipe("a cat", f"{tmp_path}/{name}", time_length=seconds, **({"fps": 12} if seconds else {}), **CALL).path
    asked = [] if target is None else ["--save-path", str(tmp_path / target)]
    assert main(["replay", str(made), "--weights", str(small_weights), "--json", *asked]) == 0
    path = json.loads(capsys.readouterr().out)["path"]
    assert path == str(tmp_path / (target or f"{made.stem}-replay{made.suffix}"))
    before, after = read_record(made), read_record(path)
    if target is None:
        assert after == before
    else:
        assert after == dataclasses.replace(before, crf=after.crf, codec=after.codec)
        assert after.codec in ("h264", "vp9")


@pytest.mark.parametrize(("name", "target"), [("v.mkv", "w.webm"), ("v.webm", "w.WEBM"), ("v.mp4", "w.MOV")])
def test_replay_keeps_the_codec_where_the_new_ending_may_have_it(pipe, small_weights, tmp_path, name, target):
    """And its crf."""
    codec = "hevc" if name == "v.mp4" else "vp9"
    made = pipe("a cat", tmp_path / name, time_length=1, codec=codec, crf=33, **CALL).path
    asked = ["--save-path", str(tmp_path / target), "--quiet"]
    assert main(["replay", str(made), "--weights", str(small_weights), *asked]) == 0
    assert read_record(tmp_path / target) == read_record(made)


LAUNCHED = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize("rank", [0, 1])
def test_only_who_writes_looks_at_the_target(pipe, tmp_path, monkeypatch, capsys, rank):
    """Of several processes the first; the others' file system may lack the folder."""
    made = pipe("a cat", tmp_path / "i.png", time_length=0, **CALL).path

    class LoadedError(Exception):
        pass

    def load(*_given, **_options):
        raise LoadedError

    monkeypatch.setattr("kandinsky.factory.get_T2V_pipeline", load)
    monkeypatch.setattr("kandinsky.checkpoint.model_set.read_model_set", lambda _folder: pipe.model_set)
    for name, value in {**LAUNCHED, "RANK": str(rank)}.items():
        monkeypatch.setenv(name, value)
    with nullcontext() if rank == 0 else pytest.raises(LoadedError):
        assert main(["replay", str(made), "--save-path", "/nowhere/i.png"]) == 2
        assert "the folder '/nowhere' does not exist" in capsys.readouterr().err


def test_replay_alone_whatever_a_launcher_left(pipe, small_weights, tmp_path, monkeypatch):
    """Else it would wait for the other process."""
    made = pipe("a cat", tmp_path / "i.png", time_length=0, **CALL).path
    for name, value in {**LAUNCHED, "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(["replay", str(made), "--weights", str(small_weights), "--no-distributed", "--quiet"]) == 0
    assert (tmp_path / "i-replay.png").read_bytes() == made.read_bytes()


def test_replay_tells_what_is_different(pipe, tmp_path, capsys):
    made = pipe("a cat", tmp_path / "i.png", time_length=0, **CALL).path
    other = own_weights(tmp_path / "other", SMALL)
    (other / SMALL.dit_file).unlink()
    torch.save(random_dit(SIZES["tiny"].dit, torch.Generator().manual_seed(1)).state_dict(), other / SMALL.dit_file)
    assert main(["replay", str(made), "--weights", str(other), "--quiet"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("warning: the result may differ: weights: was {'dit'")
    assert (tmp_path / "i-replay.png").read_bytes() != made.read_bytes()


def test_resume_needs_the_vae_alone(pipe, tmp_path, capsys, monkeypatch):
    """Once with that of the interrupted process, once with another folder."""
    expected = pipe("a cat", tmp_path / "v.mp4", time_length=1, **CALL).path.read_bytes()
    (tmp_path / "program").mkdir()
    (tmp_path / "again").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path / "program", FAILS_AT_THE_END))
        with pytest.raises(DecodeError, match="No space left on device"):
            pipe("a cat", tmp_path / "again" / "v.mp4", time_length=1, **CALL)
    file = tmp_path / "again" / "v.latents.safetensors"
    assert main(["resume", str(file), "--no-progress"]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}/again/v.mp4: 9 frames, seed 3; {file} is not needed any more\n"
    assert said.err == ""
    assert (tmp_path / "again" / "v.mp4").read_bytes() == expected
    vae_alone = tmp_path / "weights"
    vae_alone.mkdir()
    (vae_alone / "vae").symlink_to(TINY / "vae")
    target = tmp_path / "w.mp4"
    assert main(["resume", str(file), "--json", "--weights", str(vae_alone), "--save-path", str(target)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["path"], shown["seed"], shown["num_frames"]) == (str(target), 3, 9)
    assert target.read_bytes() == expected


def test_damaged_weights_are_a_failure(latents, tmp_path, capsys):
    """Not a wrong argument: exit code 1."""
    shutil.copytree(TINY / "vae", tmp_path / "w" / "vae")
    (file,) = (tmp_path / "w" / "vae").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["resume", str(latents), "--weights", str(tmp_path / "w"), "--device", "cpu"]) == 1
    assert f"{file.name} is truncated" in capsys.readouterr().err
    assert not (tmp_path / "v.mp4").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["resume", "{latents}"], 2, "does not name its weights; name their folder with --weights"),
        (["resume", "{latents}", "--weights", "/nowhere", "--device", "cpu"], 1, "no VAE at /nowhere/vae"),
        (["resume", "{latents}", "--weights", "{weights}", "--save-path", "/nowhere/v.mp4"], 2, "does not exist"),
        (["resume", "{latents}", "--weights", "{weights}", "--save-path", "v.txt"], 2, "must end with one of"),
        (["resume", "{latents}", "--weights", "{weights}", "--device", "gpu"], 2, "device='gpu' is not a device"),
        (["resume", "{foreign}", "--weights", "{weights}"], 2, "names a target in another folder"),
        (["resume", "{folder}/gone"], 1, "no such file"),
        (["resume", "{damaged}", "--weights", "{weights}"], 1, "is damaged or was not saved by this library"),
        (["replay", "{latents}", "--weights", "{weights}"], 2, "name a file for the video with --save-path"),
        (["replay", "{latents}", "--weights", "{weights}", "--save-path", "v.mp4"], 2, "width=64, height=64: allowed"),
        (["replay", "{damaged}", "--save-path", "v.mp4"], 1, "is damaged"),
        (["replay", "{folder}/gone.mp4"], 1, "no such file"),
        (["show", "{folder}"], 1, "has no record of a generation"),
        (["show", "{folder}/gone.mp4"], 1, "no such file"),
        (["show"], 2, "required: file"),
    ],
)
def test_what_is_refused(latents, unreadable, tmp_path, capsys, arguments, code, message):
    """Whatever is wrong with the arguments is told before a weight is read."""
    damaged = tmp_path / "x.latents.safetensors"
    damaged.write_bytes(b"nothing")
    (tmp_path / "in").mkdir()
    source = VaeSource(str(TINY / "vae"), "cpu", "float32", memory_saving=False)
    foreign = save_unfinished(
        Unfinished(latents=SMALL_LATENTS, record=RECORD, save_path=tmp_path / "w.mp4", metadata=True, vae=source)
    ).rename(tmp_path / "in" / "w.latents.safetensors")
    places = {"latents": latents, "folder": tmp_path, "damaged": damaged, "foreign": foreign, "weights": unreadable}
    before = sorted(tmp_path.rglob("*"))
    assert main([argument.format(**places) for argument in arguments]) == code
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_a_record_that_nobody_of_us_wrote(pipe, tmp_path, capsys):
    """It ends with one message, whatever stands in it."""
    from PIL.PngImagePlugin import PngInfo

    image = pipe("a cat", output_type="pil", time_length=0, **CALL)[0]
    record = json.loads(dataclasses.replace(RECORD, time_length=0, origin=pipe.origin).to_json())
    for name, value in (("dtype", "load"), ("devices", 3), ("weights", [1]), ("attention", None)):
        text = PngInfo()
        text.add_itxt("comment", json.dumps({**record, "origin": {**record["origin"], name: value}}))
        image.save(tmp_path / "i.png", pnginfo=text)
        assert main(["replay", str(tmp_path / "i.png"), "--weights", str(TINY)]) == 1
        assert "i.png: its comment is not a record of a generation" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("way", ["network", None])
def test_replay_of_a_smooth_video(pipe, small_weights, tmp_path, capsys, way):
    """The record says what was made between the frames, and by what, also where nobody said it."""
    made = pipe("a cat", tmp_path / "v.mp4", time_length=1, interpolate=3, interpolate_with=way, **CALL)
    assert (made.num_frames, made.fps) == (25, 24)
    assert main(["show", str(made.path)]) == 0
    assert f"interpolate: 3\ninterpolate_with: {way or 'ffmpeg'}\n" in capsys.readouterr().out
    assert main(["replay", str(made.path), "--weights", str(small_weights), "--no-progress"]) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == made.path.read_bytes()


@pytest.mark.slow
def test_resume_of_a_smooth_video(pipe, tmp_path, monkeypatch):
    """What failed in the middle is finished as it was asked for."""
    call = {**CALL, "time_length": 1, "interpolate": 2, "interpolate_with": "network"}
    expected = pipe("a cat", tmp_path / "v.mp4", **call).path.read_bytes()
    (tmp_path / "program").mkdir()
    (tmp_path / "again").mkdir()
    with monkeypatch.context() as patch:
        patch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path / "program", FAILS_AT_THE_END))
        with pytest.raises(DecodeError):
            pipe("a cat", tmp_path / "again" / "v.mp4", **call)
    assert main(["resume", str(tmp_path / "again" / "v.latents.safetensors"), "--no-progress"]) == 0
    assert (tmp_path / "again" / "v.mp4").read_bytes() == expected


def test_replay_asks_for_low_rank_weights(small_weights, tmp_path, capsys):
    """They are found by their content among the files that are given, whatever these are called."""
    file, made = plain_file(tmp_path / "one.safetensors"), tmp_path / "v.png"
    other = plain_file(tmp_path / "other.safetensors", 1)
    call = ["--weights", str(small_weights), "--device", "cpu", "--quiet"]
    size = ["--time-length", "0", "--width", "64", "--height", "64", "--save-path", str(made)]
    assert main(["generate", "--text", "a cat", *size, *call, "--lora", f"{file}:0.5"]) == 0
    origin = read_record(made).origin
    assert (list(origin.loras), dict(origin.lora_weights)) == (["one"], {"one": "0.5"})
    again = tmp_path / "again.png"
    replay = ["replay", str(made), *call, "--save-path", str(again)]
    assert main(replay) == 2
    assert main([*replay, "--lora", str(other)]) == 2
    assert f"made with the LoRA 'one' ({origin.loras['one']}) at 0.5" in capsys.readouterr().err
    renamed = file.rename(tmp_path / "renamed.safetensors")
    assert main([*replay, "--lora", str(other), "--lora", str(renamed)]) == 0
    assert again.read_bytes() == made.read_bytes()  # the record has the name, too
    assert main(["generate", "--text", "a cat", *size, *call, "--lora", str(tmp_path / "no.safetensors")]) == 2
    assert "there is no file or folder" in capsys.readouterr().err
