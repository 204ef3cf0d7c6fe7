"""What a record says of pictures and videos that were given; anybody may have written it."""

import json

import pytest

from kandinsky.errors import RecordError
from kandinsky.output.record import GivenRecord, Record

PLAIN = {"prompt": "a cat", "seed": 1, "width": 64, "height": 64, "time_length": 1, "fps": 8, "crf": 5}


def record(given=None):
    return Record(**PLAIN, codec="h264", origin=None, given=given)


def test_it_comes_back_as_it_was():
    inputs = {"video": {"name": "a b.mp4", "sha256": "ab"}, "mask": {"name": None, "sha256": "cd"}}
    made = record(GivenRecord(inputs=inputs, strength=0.5, fit="cover", overlap=1, seeds=[1, 2]))
    assert Record.from_json(made.to_json(), "v.mp4") == made
    assert Record.from_json(record().to_json(), "v.mp4").given is None


@pytest.mark.parametrize(
    "given",
    [
        {"inputs": {"image": {"name": "../p.png", "sha256": "a"}}},
        {"inputs": {"image": {"name": 3, "sha256": "a"}}},
        {"inputs": {"image": {"name": None, "sha256": None}}},
        {"inputs": {"image": {"name": None}}},
        {"inputs": {"other": {"name": None, "sha256": "a"}}},
        {"inputs": []},
        {"inputs": {}, "strength": 0.6},
        {"inputs": {}, "seeds": ["1"]},
        {"inputs": {}, "overlap": "1"},
        {"inputs": {}, "fit": 1},
        {},
        3,
    ],
)
def test_what_anybody_may_have_written_of_inputs(given):
    text = json.dumps({**json.loads(record().to_json()), "given": given})
    with pytest.raises(RecordError, match="is not a record"):
        Record.from_json(text, "v.mp4")
