"""Arguments of a call to a request: what they mean, and what is refused before a model runs."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from fakes import ffmpeg_script
from helpers import SMALL

from kandinsky.output.options import OutputOptions
from kandinsky.request import MAX_SEED, Job, check_targets, request_of

SIZE = {"time_length": 1, "width": 64, "height": 64}


def asked(text="a cat", save_path="v.mp4", *, options=None, **arguments):
    return request_of(
        text, save_path, **{**SIZE, "seed": 1, **arguments}, model_set=SMALL, options=OutputOptions(**(options or {}))
    )


def test_one_video():
    request = asked(seed=3)
    assert request.jobs == (Job("a cat", 3, Path("v.mp4")),)
    assert (request.shape.num_frames, request.shape.width, request.shape.height) == (9, 64, 64)
    assert (request.output.kind, request.output.fps, request.output.codec) == ("file", 8, "h264")


def test_several_videos_count_up():
    request = asked(["a cat", "a dog"], "a/v.mp4", bs=2, seed=5)
    prompts = ["a cat", "a cat", "a dog", "a dog"]
    assert request.jobs == tuple(
        Job(prompt, 5 + index, Path(f"a/v-{index}.mp4")) for index, prompt in enumerate(prompts)
    )


def test_one_prompt_in_a_list_is_one_video():
    assert asked(["a cat"]) == asked("a cat")
    assert asked(("a cat",)) == asked("a cat")


def test_defaults_are_those_of_the_model_set():
    request = request_of("a cat", model_set=dataclasses.replace(SMALL, max_seconds=5))
    assert (request.shape.seconds, request.shape.width, request.shape.height) == (5, 64, 64)
    assert request.jobs[0].path == Path("test.mp4")


def test_numbers_of_numpy_are_numbers():
    assert asked(time_length=np.int64(1), seed=np.int32(1), bs=np.uint8(1)) == asked()


def test_a_seed_is_drawn_where_none_is_given():
    seeds = {asked(seed=None).jobs[0].seed for _ in range(20)}
    assert len(seeds) == 20
    assert all(0 <= seed <= MAX_SEED for seed in seeds)
    first, second = asked(seed=None, bs=2).jobs
    assert second.seed == first.seed + 1
    assert asked(seed=MAX_SEED).jobs[0].seed == MAX_SEED


@pytest.mark.parametrize(
    ("save_path", "options", "kind", "path"),
    [
        ("./test.mp4", {}, "pil", None),  # the default, which no image can have
        ("cat.png", {}, "file", Path("cat.png")),
        ("cat.png", {"type": "pil"}, "pil", None),
        ("cat.mp4", {"type": "latent"}, "latent", None),
        (None, {}, "pil", None),
    ],
)
def test_an_image_is_a_file_where_a_path_is_given(save_path, options, kind, path):
    request = asked(save_path=save_path, time_length=0, options=options)
    assert request.shape.is_image
    assert (request.output.kind, request.jobs[0].path) == (kind, path)


def test_frames_have_no_path():
    assert asked(return_frames=True).output.kind == "pil"
    assert asked(["a", "b"], return_frames=True).jobs == (Job("a", 1, None), Job("b", 2, None))


def test_a_request_is_frozen():
    request = asked()
    for value, name in (
        (request, "shape"),
        (request.jobs[0], "seed"),
        (request.shape, "width"),
        (request.output, "fps"),
    ):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)


WRONG = {
    "size": ({"width": 100}, "width=100, height=64: allowed width x height: 64x64, 96x64"),
    "negative length": ({"time_length": -1}, "time_length=-1: allowed is 0"),
    "fraction": ({"time_length": 1.5}, "time_length=1.5: must be a whole number"),
    "too long": ({"time_length": 64}, "time_length=64: allowed is 0"),
    "bs": ({"bs": 0}, "bs=0: allowed is 1 and more"),
    "bs fraction": ({"bs": 1.5}, "bs=1.5: must be a whole number"),
    "text": ({"text": 5}, "text=5: allowed is a string, or a list of one or more strings"),
    "no text": ({"text": []}, r"text=\[\]: allowed is a string"),
    "text in list": ({"text": ["a", None]}, "text=None: allowed is a string"),
    "bytes": ({"text": b"a cat"}, "text=b'a cat': allowed is a string"),
    "negative seed": ({"seed": -1}, "seed=-1: allowed is 0 to 9223372036854775807"),
    "large seed": ({"seed": 2**63}, "seed=9223372036854775808: allowed is 0 to 9223372036854775807"),
    "large seeds": ({"seed": 2**63 - 1, "bs": 2}, r"allowed is 0 to 9223372036854775806 \(2 videos count up from it\)"),
    "surrogate": ({"text": "\ud800"}, "allowed is text that UTF-8 can hold"),
    "too many": ({"bs": 6000, "text": ["a", "b"]}, "bs=6000 of 2 prompts: allowed are 10000 videos a call"),
    "image's ending": ({"time_length": 0, "save_path": "v.mp4"}, r"save_path='v.mp4': must end with one of \.png"),
    "no path": ({"save_path": None}, "save_path=None: allowed with output_type='file' is a path"),
    "seed": ({"seed": "x"}, "seed='x': must be a whole number"),
    "ending": ({"save_path": "v.avi"}, r"save_path='v.avi': must end with one of \.mp4"),
    "bytes as path": ({"save_path": b"v.mp4"}, "save_path=b'v.mp4': allowed is a path of text"),
    "prompt for a jpg": (
        {"text": ["short", "x" * 70_000], "save_path": "i.jpg", "time_length": 0},
        "a jpg has no room for a record with this prompt of 70002 bytes",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_argument(case):
    arguments, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        asked(**arguments)


def test_a_jpg_without_a_record_has_room_for_any_prompt():
    assert asked("x" * 70_000, "i.jpg", time_length=0, options={"metadata": False}).jobs[0].path == Path("i.jpg")


TARGETS = {
    "long name": ({"save_path": "v" * 300 + ".mp4"}, "allowed is a name in UTF-8.* of at most 255 bytes"),
    "long name of the last": ({"save_path": "v" * 250 + ".mp4", "bs": 10}, "of at most 255 bytes"),
    "null": ({"save_path": "a\0.mp4"}, "allowed is a name in UTF-8 without"),
    "folder": ({"save_path": "/nowhere/v.mp4"}, "the folder '/nowhere' does not exist"),
    "read-only folder": ({"save_path": "/proc/v.mp4"}, "cannot write in '/proc'"),
    "full folder": ({"save_path": "full/"}, "is not empty; name a new folder"),
    "folder for a file": ({"save_path": "several-1.mp4"}, "'several-1.mp4' is a folder; a file name is needed"),
    "folder for one of several": ({"save_path": "several.mp4", "bs": 3}, "'several-1.mp4' is a folder"),
    "full folder of several": ({"save_path": "several/", "bs": 2}, "several-1/' is not empty"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_what_cannot_be_written(case, tmp_path, monkeypatch):
    """The arguments alone are right; the file system refuses."""
    monkeypatch.chdir(tmp_path)
    for name in ("full", "several-1", "several-1.mp4"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x").touch()
    arguments, message = TARGETS[case]
    request = asked(**arguments)
    with pytest.raises(ValueError, match=message):
        check_targets(request)


def test_what_can_be_written(tmp_path):
    check_targets(asked(save_path=f"{tmp_path}/new/"))
    check_targets(asked(save_path=tmp_path / "v.mp4", bs=3))
    check_targets(asked(save_path="/nowhere/v.mp4", return_frames=True))  # where nothing is written
    assert list(tmp_path.iterdir()) == []


def test_an_encoder_that_ffmpeg_has_not(tmp_path, monkeypatch):
    program = ffmpeg_script(tmp_path, "exit 1", listing="echo ' V..... libx264 H.264'")
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    check_targets(asked(save_path=tmp_path / "v.mp4"))
    request = asked(save_path=tmp_path / "v.mp4", options={"codec": "hevc"})
    with pytest.raises(ValueError, match=r"codec='hevc': .* has no libx265; allowed with it: 'h264'"):
        check_targets(request)
