"""Every kind of output: what it is, and what is refused before a model runs."""

import dataclasses
import re
import subprocess

import numpy as np
import pytest
import torch
from imageio_ffmpeg import get_ffmpeg_exe
from PIL import Image

from kandinsky.pipeline import Kandinsky4T2VPipeline

CALL = {"width": 64, "height": 64, "time_length": 1, "seed": 3}


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("v.mp4", {"fps": 12}, r"h264 .* 12 fps"),
        ("v.mp4", {"codec": "hevc"}, r"hevc .*hvc1.* 8 fps"),
        ("v.mov", {}, r"h264 .* 8 fps"),
        ("v.mkv", {"codec": "vp9"}, r"vp9 .* 8 fps"),
        ("v.webm", {"fps": 24}, r"vp9 .* 24 fps"),
    ],
)
def test_video_files(pipe, tmp_path, name, options, expected):
    result = pipe("a cat", tmp_path / name, **CALL, **options)
    said = subprocess.run([get_ffmpeg_exe(), "-i", result.path], capture_output=True, text=True, check=False).stderr
    assert re.search(r"Video: " + expected, said)
    assert result.fps == options.get("fps", 8)


def test_crf_is_used(pipe, tmp_path):
    sizes = [pipe("a cat", tmp_path / "v.mp4", crf=crf, **CALL).path.stat().st_size for crf in (1, 20, 51)]
    assert sizes[0] > sizes[1] > sizes[2]


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_animations(pipe, tmp_path, ending):
    with Image.open(pipe("a cat", tmp_path / f"v.{ending}", **CALL).path) as image:
        durations = []
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
    assert len(durations) == 9
    assert sum(durations) == pytest.approx(9 * 125, abs=10)


def test_types_are_the_same_frames(pipe):
    kinds = {kind: pipe("a cat", output_type=kind, **CALL) for kind in ("pil", "np", "pt", "latent")}
    assert kinds["np"].shape == (9, 64, 64, 3)
    assert np.array_equal(kinds["np"], kinds["pt"])
    assert np.array_equal(kinds["np"], [np.asarray(image) for image in kinds["pil"]])
    assert np.array_equal(kinds["np"], torch.cat(list(pipe.vae.decode(kinds["latent"]))))


def test_latents_are_finished_later(pipe, tmp_path):
    latents = pipe("a cat", output_type="latent", **CALL)
    expected = pipe("a cat", tmp_path / "v.mp4", metadata=False, **CALL).path.read_bytes()
    assert pipe.decode_to(latents, tmp_path / "w.mp4").path.read_bytes() == expected
    with pytest.raises(ValueError, match="save_path=None: these latents do not say"):
        pipe.decode_to(latents)
    with pytest.raises(ValueError, match=r"allowed: floating-point \[T, H, W, C\]"):
        pipe.decode_to(latents[0], tmp_path / "w.mp4")
    with pytest.raises(ValueError, match=r"allowed for this VAE: floating-point \[T, H, W, 16\]"):
        pipe.decode_to(latents[..., :4], tmp_path / "w.mp4")


@pytest.mark.parametrize("ending", ["png", "jpg", "webp"])
def test_image_files(pipe, tmp_path, ending):
    result = pipe("a cat", tmp_path / f"i.{ending}", **{**CALL, "time_length": 0}, output_type="file")
    with Image.open(result.path) as image:
        assert image.size == (64, 64)


WRONG = {
    "output_type": ({"output_type": "gif"}, "output_type='gif': allowed are 'file', 'pil', 'np', 'pt', 'latent'"),
    "both": ({"output_type": "np", "return_frames": True}, "output_type='np': with return_frames=True allowed are"),
    "fps": ({"fps": 0}, "fps=0: allowed is 1 to 120"),
    "fps fraction": ({"fps": 7.5}, "fps=7.5: must be a whole number"),
    "crf": ({"crf": 52}, "crf=52: allowed is 0 to 51"),
    "codec": ({"codec": "av1"}, "codec='av1': in a .mp4 file allowed are 'h264', 'hevc'"),
    "codec of the ending": ({"save_path": "v.webm", "codec": "h264"}, "in a .webm file allowed are 'vp9'"),
    "crf of a gif": ({"save_path": "v.gif", "crf": 5}, "crf=5: a .gif has none"),
    "codec of frames": ({"save_path": "f/", "codec": "h264"}, "codec='h264': a folder of png frames has none"),
    "fps of an image": ({"time_length": 0, "output_type": "file", "fps": 8}, "fps=8: time_length=0 makes an image"),
    "fps of frames": ({"output_type": "pil", "fps": 8}, "fps=8: nothing is written"),
    "png of a video": ({"save_path": "v.png"}, "or with / for a folder of png frames"),
    "folder with an ending": ({"save_path": "v.mp4/"}, "must have a name without an ending"),
    "full folder": ({"save_path": "full/"}, "is not empty; name a new folder"),
    "full folder of several": ({"save_path": "several/", "bs": 2}, "several-1/' is not empty"),
    "metadata": ({"metadata": "no"}, "metadata='no': allowed are True and False"),
    "long name": ({"save_path": "v" * 256 + ".mp4"}, "255 bytes"),
    "lone surrogate": ({"text": "\ud800"}, "allowed is text that UTF-8 can hold"),
    "prompt for a jpg": (
        {"text": "x" * 70_000, "save_path": "i.jpg", "time_length": 0, "output_type": "file"},
        "a jpg has no room for a record with this prompt",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_refused(pipe, case, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pipe = Kandinsky4T2VPipeline(dataclasses.replace(pipe.parts, text_encoder=None))  # no model can run
    for name in ("full", "several-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=re.escape(message)):
        pipe(**{"text": "a cat", "save_path": "v.mp4", **CALL, **arguments})


def test_encoder_that_is_missing(pipe, tmp_path, monkeypatch):
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\necho ' V..... libx264 H.264'\n")
    program.chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(program))
    with pytest.raises(ValueError, match=r"codec='hevc': .* has no libx265; allowed with it: 'h264'"):
        pipe("a cat", tmp_path / "v.mp4", codec="hevc", **CALL)
