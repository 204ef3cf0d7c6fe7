"""Calls, batches and commands that are given pictures and videos: what is kept, and that the same is made again."""

import json
import shutil

import numpy as np
import pytest
import torch
from helpers import SMALL
from PIL import Image

from kandinsky.batch.prompts import read_prompts
from kandinsky.batch.run import run_batch
from kandinsky.cli.main import main
from kandinsky.errors import DecodeError
from kandinsky.output.read_record import read_record

ASKED = {"time_length": 1, "seed": 3}
SIZE = {"width": 64, "height": 64}


@pytest.fixture(scope="module")
def picture():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(1).integers(0, 256, (9, 64, 64, 3), np.uint8)


def encoded(pipe, pixels):
    return pipe.vae.encode(torch.from_numpy(np.array(pixels))).double()


def test_the_known_latents_are_bit_equal_to_the_encoded_ones(pipe, picture):
    latents = pipe("a cat", image=picture, last_image=picture, output_type="latent", **ASKED)
    assert torch.equal(latents[:1], encoded(pipe, np.array(picture)[None]))
    assert torch.equal(latents[2:], encoded(pipe, np.repeat(np.array(picture)[None], 9, axis=0))[2:])
    plain = pipe("a cat", output_type="latent", **ASKED, **SIZE)
    assert not torch.equal(latents[1], plain[1])


def test_strength_1_is_as_if_there_were_no_video(pipe, clip):
    plain = pipe("a cat", output_type="latent", **ASKED, **SIZE)
    whole, half, hardly = (
        pipe("a cat", video=clip, strength=strength, output_type="latent", **ASKED) for strength in (1, 0.5, 0.25)
    )
    assert torch.equal(plain, whole)
    given = encoded(pipe, clip)
    assert (hardly - given).norm() < (half - given).norm() < (whole - given).norm()


def test_what_is_black_in_the_mask_stays(pipe, clip):
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    latents = pipe("a cat", video=clip, mask=mask, output_type="latent", **ASKED)
    same = (latents == encoded(pipe, clip)).all(-1)
    assert same[:, :, 5:].all()  # four of eight columns are white, and one beside them is made anew too
    assert not same[:, :, :5].any()


def test_a_picture_is_filled_in(pipe, picture):
    (made,) = pipe("a cat", time_length=0, seed=3, image=picture, mask=picture.convert("L"))
    assert made.size == (64, 64)


def test_all_videos_of_a_call_are_given_the_same(pipe, picture):
    both = pipe("a cat", bs=2, image=picture, output_type="latent", **ASKED)
    assert torch.equal(both[1], pipe("a cat", image=picture, output_type="latent", time_length=1, seed=4))


def test_a_batch_equals_calls_and_goes_on(pipe, picture, tmp_path):
    picture.save(tmp_path / "p.png")
    lines = [{"text": "a cat", "image": "p.png"}, {"text": "a dog"}]
    (tmp_path / "lines.jsonl").write_text("\n".join(map(json.dumps, lines)))
    items = read_prompts(tmp_path / "lines.jsonl", {**ASKED}, model_set=SMALL)
    assert run_batch(pipe, items, tmp_path / "made").made == 2
    alone = pipe("a cat", tmp_path / "alone.mp4", image=tmp_path / "p.png", **ASKED)
    assert alone.path.read_bytes() == (tmp_path / "made" / "0001.mp4").read_bytes()
    assert run_batch(pipe, items, tmp_path / "made").skipped == 2
    picture.rotate(90).save(tmp_path / "p.png")
    again = read_prompts(tmp_path / "lines.jsonl", {**ASKED}, model_set=SMALL)
    assert run_batch(pipe, again, tmp_path / "made").skipped == 1  # another picture under the same name
    (tmp_path / "lines.jsonl").write_text(json.dumps({"text": "a cat", "image": "no.png"}))
    with pytest.raises(ValueError, match=r"lines.jsonl, line 1: image=.*no such file"):
        read_prompts(tmp_path / "lines.jsonl", {**ASKED}, model_set=SMALL)


@pytest.mark.slow
def test_the_command_its_record_and_a_replay(small_weights, picture, tmp_path, capsys):
    picture.save(tmp_path / "p.png")
    ours = ["--weights", str(small_weights), "--device", "cpu", "--no-progress"]
    asked = ["--text", "a cat", "--time-length", "1", "--image", str(tmp_path / "p.png")]
    assert main(["generate", *ours, *asked, "--save-path", str(tmp_path / "v.mp4")]) == 0
    record = read_record(tmp_path / "v.mp4")
    assert record.given.inputs["image"]["name"] == "p.png"
    assert str(tmp_path) not in record.to_json()
    replay = ["replay", str(tmp_path / "v.mp4"), "--weights", str(small_weights), "--no-progress"]
    assert main(replay) == 0
    assert (tmp_path / "v-replay.mp4").read_bytes() == (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "p.png", tmp_path / "elsewhere" / "q.png")
    capsys.readouterr()
    assert main(replay) == 2
    assert "name the file with --image" in capsys.readouterr().err
    assert main([*replay, "--image", str(tmp_path / "elsewhere" / "q.png")]) == 0
    Image.new("RGB", (64, 64)).save(tmp_path / "p.png")
    assert main(replay) == 2
    assert "other pixels" in capsys.readouterr().err


def test_nothing_is_written_over_what_is_given(pipe, picture, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = tmp_path / "p.png"
    picture.save(given)
    before = given.read_bytes()
    asked = {"image": given, "mask": picture.convert("L"), "time_length": 0}
    for save_path in ("p.png", given, tmp_path / "." / "p.png"):
        with pytest.raises(ValueError, match="it is what the call is given"):
            pipe("a cat", save_path, **asked)
    (tmp_path / "lines.jsonl").write_text(json.dumps({"text": "a cat", "image": "p.png", "save_path": "p.png"}))
    items = read_prompts(tmp_path / "lines.jsonl", {**asked, "image": None}, model_set=SMALL)
    with pytest.raises(ValueError, match="it is what the call is given"):
        run_batch(pipe, items, tmp_path)
    assert given.read_bytes() == before


def test_a_record_without_inputs_is_as_before(pipe, tmp_path):
    made = pipe("a cat", tmp_path / "v.mp4", **ASKED, **SIZE)
    assert "given" not in read_record(made.path).to_json()


@pytest.mark.parametrize("name", ["image", "last-image", "video", "mask"])
def test_bad_files_are_refused_before_weights_are_loaded(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    (tmp_path / "bad.bin").write_bytes(b"")
    good = {"mask": ["--image", "good.png"], "video": ["--strength", "0.5"]}.get(name, [])
    Image.new("RGB", (64, 64)).save(tmp_path / "good.png")
    code = main(["generate", "--weights", "weights", "--device", "cpu", f"--{name}", "bad.bin", *good])
    assert code == 2
    assert f"{name.replace('-', '_')}='bad.bin'" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.bin", "good.png", "weights"]


def test_latents_of_a_failed_decoding_are_finished_with_their_record(pipe, picture, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(pipe.vae, "frames", fail)
        with pytest.raises(DecodeError, match="kandinsky resume"):
            pipe("a cat", tmp_path / "v.mp4", image=picture, **ASKED)
    result = pipe.decode_to(tmp_path / "v.latents.safetensors")
    assert read_record(result.path).given.inputs.keys() == {"image"}
    whole = pipe("a cat", tmp_path / "whole.mp4", image=picture, **ASKED)
    assert whole.path.read_bytes() == result.path.read_bytes()
