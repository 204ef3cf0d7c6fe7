"""Bodies become what is asked for: every field is looked at, and a wrong one is named."""

import pytest
from helpers import SMALL

from kandinsky.request import MAX_SEED
from kandinsky.serving.answers import Refusal
from kandinsky.serving.fields import (
    EXACT_IN_BROWSERS,
    edit_of,
    extension_of,
    images_of,
    refused,
    video_of,
)
from kandinsky.serving.options import MODEL, Options

OPTIONS = Options(model_set=SMALL)


def test_defaults_are_those_that_the_page_of_the_contract_names():
    asked = video_of({"prompt": "a cat"}, Options())
    assert (asked.time_length, asked.width, asked.height, asked.ending) == (12, 672, 384, ".mp4")
    assert (asked.fps, asked.crf, asked.codec, asked.metadata) == (None, None, None, True)
    short = video_of({"prompt": "a cat"}, Options(model_set=SMALL, max_seconds=3))
    assert (short.time_length, short.width, short.height) == (3, 64, 64)


def test_a_seed_that_is_drawn_keeps_its_digits_in_a_browser():
    seeds = {video_of({"prompt": "a"}, OPTIONS).seed for _ in range(20)}
    assert len(seeds) == 20
    assert max(seeds) < EXACT_IN_BROWSERS


def test_both_names_of_the_prompt_are_one_field():
    assert video_of({"text": "a", "prompt": None}, OPTIONS).text == video_of({"prompt": "a"}, OPTIONS).text == "a"


@pytest.mark.parametrize(
    "prompt", ["été 猫 🐈‍⬛", "\u202eright to left", "two\nlines\ttab", 'quo"te\\', "e\u0301", " a "]
)
def test_a_prompt_is_taken_as_it_is(prompt):
    assert video_of({"prompt": prompt}, OPTIONS).text == prompt


@pytest.mark.parametrize("prompt", ["", " \n\t", "\u2003", "a\ud800", "a" * 4001, ["a"], {"a": 1}, 1.5, True, False, 0])
def test_a_prompt_that_is_none(prompt):
    with pytest.raises(Refusal) as caught:
        video_of({"prompt": prompt}, OPTIONS)
    assert (caught.value.status, caught.value.param) == (400, "prompt")


@pytest.mark.parametrize(
    "value", [-1, MAX_SEED + 1, "-1", "1.0", " 1", "1 ", "+1", "0x1", "\u0661", "9" * 19, "1e3", "", 1.0, True, [1], {}]
)
def test_a_seed_that_is_none(value):
    with pytest.raises(Refusal) as caught:
        video_of({"prompt": "a", "seed": value}, OPTIONS)
    assert (caught.value.status, caught.value.param) == (400, "seed")


def test_loras_are_names_of_the_server():
    options = Options(model_set=SMALL, loras={"one": 1.0, "two": 0.5})
    for read in (video_of, lambda body, options: images_of(body, options)[0]):
        assert read({"prompt": "a"}, options).loras is None
        assert read({"prompt": "a", "loras": {"two": "0.5"}}, options).loras == {"one": 0.0, "two": 0.5}
        assert read({"prompt": "a", "loras": {}}, options).loras == {"one": 0.0, "two": 0.0}  # {} would not be kept
    assert extension_of({"prompt": "a", "seconds": 1, "loras": {"one": -1}}, options).loras == {"one": -1, "two": 0.0}
    for wrong in ({"../three": 1}, {"one": "much"}, {"one": None}, {"one": True}, ["one"], "one"):
        with pytest.raises(Refusal) as caught:
            video_of({"prompt": "a", "loras": wrong}, options)
        assert (caught.value.status, caught.value.param) == (400, "loras")
    with pytest.raises(Refusal):
        video_of({"prompt": "a", "loras": {"one": 1}}, OPTIONS)


def test_the_largest_seed_keeps_every_digit():
    assert video_of({"prompt": "a", "seed": str(MAX_SEED)}, OPTIONS).seed == MAX_SEED
    assert video_of({"prompt": "a", "seed": 0}, OPTIONS).seed == 0


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "64X64"), ("size", "64x64x64"), ("size", " 64x64"), ("size", "64x64\n"), ("size", "-64x64"),
        ("size", "0x0"), ("size", "99999x99999"),
        ("size", "\u0666\u0664x\u0666\u0664"), ("size", 64), ("size", [64, 64]), ("size", ""),
        ("seconds", -1), ("seconds", 10**100), ("seconds", "10000000000"), ("seconds", [1]), ("seconds", "one"),
        ("fps", -1), ("fps", 121), ("fps", 1.5), ("crf", -1), ("crf", "64"), ("codec", "h265"), ("codec", ["h264"]),
        ("codec", "-i"), ("format", ".mp4"), ("format", "mp4/../x"), ("format", "mp4\0"), ("format", "exe"),
        ("format", 4), ("metadata", 1), ("metadata", "True"), ("metadata", []), ("precision", "EXACT"),
        ("precision", 8), ("model", 4), ("model", MODEL.upper()), ("model", []),
    ],
)  # fmt: skip
def test_a_value_that_is_none_names_its_field(name, value):
    with pytest.raises(Refusal) as caught:
        video_of({"prompt": "a", name: value}, OPTIONS)
    assert (caught.value.status, caught.value.param) == (400, name)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    "name", ["", "Prompt", "prompt ", "__class__", "a" * 10_000, "n", "output_format", "path", "save_path"]
)
def test_an_unknown_field_is_named(name):
    with pytest.raises(Refusal) as caught:
        video_of({"prompt": "a", name: None}, OPTIONS)
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", name[:64])
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", ["input_reference", "strength", "image", "mask"])
def test_images_take_no_files(name):
    with pytest.raises(Refusal, match="unknown field"):
        images_of({"prompt": "a cat", name: "x"}, OPTIONS)


@pytest.mark.parametrize(("name", "value"), [("strength", 0.5), ("fit", "cover")])
def test_how_files_are_used_is_for_those_that_are_there(name, value):
    with pytest.raises(Refusal, match=f"{name} is for") as caught:
        video_of({"prompt": "a cat", name: value}, OPTIONS)
    assert caught.value.param == name
    assert getattr(video_of({"prompt": "a cat", name: value}, OPTIONS, inputs={"video"}), name) == value


def test_an_edit_is_halfway_unless_it_says_otherwise():
    assert edit_of({"prompt": "a cat"}, OPTIONS, inputs={"video"}).strength == 0.5
    assert edit_of({"prompt": "a cat", "strength": "0.25"}, OPTIONS, inputs={"video"}).strength == 0.25
    assert edit_of({"prompt": "a cat"}, OPTIONS, inputs={"video", "mask"}).strength is None


def test_an_extension():
    asked = extension_of({"prompt": "a cat", "seconds": "60"}, OPTIONS)
    assert (asked.time_length, asked.overlap, asked.kind) == (60, 1, "video")
    for body, param in (({}, "seconds"), ({"seconds": 61}, "seconds"), ({"seconds": 1, "strength": 1}, "strength")):
        with pytest.raises(Refusal) as caught:
            extension_of({"prompt": "a cat", **body}, OPTIONS)
        assert caught.value.param == param


def test_a_codec_chooses_the_kind_of_file():
    assert video_of({"prompt": "a", "codec": "vp9"}, OPTIONS).ending == ".webm"
    assert video_of({"prompt": "a", "format": "gif"}, OPTIONS).ending == ".gif"


def test_images_count_their_seeds_up():
    asked = images_of({"prompt": "a", "n": "3", "seed": MAX_SEED - 2, "output_format": "webp"}, OPTIONS)
    assert [one.seed for one in asked] == [MAX_SEED - 2, MAX_SEED - 1, MAX_SEED]
    assert {(one.kind, one.file_name) for one in asked} == {("image", "image.webp")}
    assert len(images_of({"prompt": "a"}, OPTIONS)) == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [("n", 0), ("n", -1), ("n", 17), ("n", "many"), ("seconds", 1), ("fps", 8), ("format", "png"),
     ("output_format", "svg"), ("output_format", 1), ("response_format", "url"), ("response_format", [])],
)  # fmt: skip
def test_an_images_value_that_is_none(name, value):
    with pytest.raises(Refusal) as caught:
        images_of({"prompt": "a", name: value}, OPTIONS)
    assert (caught.value.status, caught.value.param) == (400, name)


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "prompt", "prompt is missing"),
        ({"prompt": " "}, "prompt", "empty"),
        ({"prompt": "a", "text": "b"}, "prompt", "two names"),
        ({"prompt": 7}, "prompt", "allowed is a text"),
        ({"prompt": "a" * 4001}, "prompt", "4001 characters"),
        ({"prompt": "a", "model": "sora-2"}, "model", MODEL),
        ({"prompt": "a", "seconds": 0}, "seconds", "allowed is 1 to 63"),
        ({"prompt": "a", "seconds": "64"}, "seconds", "allowed is 1 to 63"),
        ({"prompt": "a", "seconds": 1.5}, "seconds", "whole number"),
        ({"prompt": "a", "seconds": True}, "seconds", "whole number"),
        ({"prompt": "a", "size": "65x64"}, "size", "64x64, 96x64"),
        ({"prompt": "a", "size": "64"}, "size", "64x64, 96x64"),
        ({"prompt": "a", "seed": -1}, "seed", "allowed is 0"),
        ({"prompt": "a", "seed": MAX_SEED + 1}, "seed", "allowed is 0"),
        ({"prompt": "a", "format": "../../x"}, "format", "allowed"),
        ({"prompt": "a", "codec": "vp9", "format": "mp4"}, "codec", "allowed are"),
        ({"prompt": "a", "crf": 99}, "crf", "crf=99"),
        ({"prompt": "a", "fps": 0}, "fps", "fps=0"),
        ({"prompt": "a", "metadata": "perhaps"}, "metadata", "true and false"),
        ({"prompt": "a", "precision": "fast"}, "precision", "'exact'"),
        ({"prompt": "a", "Seed": 1}, "Seed", "unknown field 'Seed'"),
    ],
)
def test_wrong_field(shared, shared_hands, body, param, said):
    answer = shared.post("/v1/videos", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert said in error["message"]
    assert shared_hands.store.counts()["queued"] == 0


@pytest.mark.parametrize(
    ("said", "param"),
    [
        ("text='': allowed is more", "prompt"),
        ("width=3: allowed is 64", "size"),
        ("strength=2: allowed is 1", "strength"),
        ("time_length=3 needs 25", "seconds"),
        ("overlap=3 needs 24 frames", "overlap"),
        ("the inputs cannot be read", None),
        ("", None),
    ],
)
def test_what_the_pipeline_says_names_a_field_or_none(said, param):
    assert refused(said).param == param


def test_frames_in_between():
    asked = video_of({"prompt": "a cat", "interpolate": "2", "interpolate_with": "ffmpeg"}, OPTIONS)
    assert (asked.interpolate, asked.interpolate_with) == (2, "ffmpeg")
    assert asked == video_of({"prompt": "a cat", "seed": asked.seed, "interpolate": 2}, OPTIONS)
    for body, param in (
        ({"interpolate": 5}, "interpolate"),
        ({"interpolate": 2, "interpolate_with": "magic"}, "interpolate_with"),
        ({"interpolate_with": "ffmpeg"}, "interpolate_with"),
    ):
        with pytest.raises(Refusal) as caught:
            video_of({"prompt": "a cat", **body}, OPTIONS)
        assert caught.value.param == param


def test_an_extension_once_more_is_of_a_job_with_a_video_alone():
    body = {"prompt": "a cat", "seconds": 1}
    assert extension_of(body, OPTIONS, inputs={"video"}).overlap == 1
    for inputs in ({"video", "mask"}, {"image"}):
        with pytest.raises(Refusal, match="a video and nothing else") as caught:
            extension_of(body, OPTIONS, inputs=inputs)
        assert caught.value.param == "inputs_of"
