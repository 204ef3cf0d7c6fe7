"""How a file was made, as one line of JSON, and what is different now."""

import dataclasses
import json

import pytest
import torch
from fakes import RECORD

from kandinsky.config import VERSION
from kandinsky.errors import RecordError
from kandinsky.output.record import Origin, Record, differences

ORIGIN = Origin(
    devices={"dit": "cuda", "vae": "cpu", "text_embedder": "cuda"},
    dtype="bfloat16",
    precision="exact",
    attention="bounded",
    kernels="triton",
    parallelism="none",
    processes=1,
    vae_memory_saving=False,
    weights={"dit": "0123", "text_encoder": "4567", "vae": "89ab"},
)
MADE = dataclasses.replace(RECORD, prompt="a \"cat\" 'x'\n\r\n \0 😀 Ödipus", origin=ORIGIN)


@pytest.mark.parametrize("record", [MADE, RECORD], ids=["with origin", "by hand"])
def test_json_and_back(record):
    text = record.to_json()
    assert Record.from_json(text, "v.mp4") == record
    assert "\n" not in text
    assert "\r" not in text
    assert "\0" not in text
    assert "Ödipus" in MADE.to_json()


def test_versions_are_those_of_now():
    assert (RECORD.kandinsky, RECORD.torch) == (VERSION, torch.__version__)


def test_nothing_tells_where_and_when(pipe, tmp_path):
    """So that the same call writes the same bytes, and a file that is given away tells nobody's paths."""
    record = dataclasses.replace(RECORD, origin=pipe.origin)
    assert {field.name for field in dataclasses.fields(Record)} == {
        "prompt", "seed", "width", "height", "time_length", "fps", "crf", "codec", "origin", "given", "kandinsky",
        "torch", "interpolate", "interpolate_with",
    }  # fmt: skip
    assert "/" not in record.to_json()
    assert str(tmp_path.parent) not in record.to_json()


def test_keys_of_later_versions_are_passed_over():
    later = json.loads(MADE.to_json())
    later["new"] = 1
    later["origin"]["new"] = {"a": 1}
    assert Record.from_json(json.dumps(later), "v.mp4") == MADE


def test_a_key_of_a_later_version_may_be_missing():
    earlier = json.loads(MADE.to_json())
    del earlier["origin"]["text_encoder_int8"]
    assert Record.from_json(json.dumps(earlier), "v.mp4") == MADE


@pytest.mark.parametrize("text", ["{}", "[]", "3", "null", "not JSON", '{"origin": 3}', '{"origin": {"dtype": 1}}'])
def test_what_is_no_record(text):
    with pytest.raises(RecordError, match=r"v\.mp4: its comment is not a record of a generation"):
        Record.from_json(text, "v.mp4")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prompt", 3), ("prompt", None), ("seed", "3"), ("seed", True), ("width", 64.0), ("fps", "8"), ("crf", [5]),
        ("codec", 5), ("torch", None), ("origin", [1]),
    ],
)  # fmt: skip
def test_a_field_of_another_type(name, value):
    """Anybody may have written it."""
    text = json.dumps({**json.loads(MADE.to_json()), name: value})
    with pytest.raises(RecordError, match=r"v\.mp4: its comment is not a record of a generation"):
        Record.from_json(text, "v.mp4")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("devices", "cpu"), ("devices", {"dit": 3}), ("dtype", "load"), ("dtype", 3), ("precision", None),
        ("processes", "1"), ("vae_memory_saving", 1), ("weights", []),
    ],
)  # fmt: skip
def test_a_field_of_the_origin_of_another_type(name, value):
    found = json.loads(MADE.to_json())
    found["origin"][name] = value
    with pytest.raises(RecordError, match=rf"not a record of a generation .*{name} is"):
        Record.from_json(json.dumps(found), "v.mp4")


def test_what_is_different_now():
    assert differences(MADE, ORIGIN) == []
    here = dataclasses.replace(ORIGIN, attention="torch", weights={**ORIGIN.weights, "dit": "ffff"})
    older = dataclasses.replace(MADE, kandinsky="0.0.1", torch="1.0")
    assert differences(older, here) == [
        f"kandinsky was 0.0.1, is {VERSION}",
        f"torch was 1.0, is {torch.__version__}",
        "attention: was bounded, is torch",
        f"weights: was {ORIGIN.weights}, is {here.weights}",
    ]


def test_what_is_not_known():
    unknown = ["the file does not tell how the pipeline was loaded"]
    assert differences(RECORD, ORIGIN) == unknown
    assert differences(MADE, None) == unknown


def test_frames_in_between_are_told_only_where_there_are_some():
    """Files that were made without them keep their bytes."""
    assert "interpolate" not in RECORD.to_json()
    smooth = dataclasses.replace(RECORD, interpolate=3, interpolate_with="network")
    assert Record.from_json(smooth.to_json(), "a file") == smooth
    assert Record.from_json(RECORD.to_json(), "a file") == RECORD
