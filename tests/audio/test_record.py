"""How a sound was made, in its file: alone, or beside the record of the video."""

import dataclasses
import json

import pytest
from fakes import RECORD
from video_helpers import run

from kandinsky.audio.record import SoundOrigin, SoundRecord, read_sound_record
from kandinsky.errors import RecordError
from kandinsky.output.read_record import read_record

SOUND = SoundRecord(
    prompt="rain",
    negative_prompt="wind",
    seed=3,
    num_inference_steps=50,
    guidance_scale=8.0,
    seconds=12,
    encoder="one",
    origin=SoundOrigin(devices={"unet": "cpu"}, dtype="float32", weights={"unet": "0"}),
)


@pytest.fixture
def commented(silent, tmp_path):
    """The video with a comment."""

    def commented(text):
        path = tmp_path / "v.mp4"
        run("-i", str(silent), "-c", "copy", "-metadata", f"comment={text}", str(path))
        return path

    return commented


def test_alone(commented):
    path = commented(SOUND.beside(None))
    assert read_sound_record(path) == SOUND
    with pytest.raises(RecordError):
        read_record(path)


def test_beside_the_record_of_the_video(commented):
    path = commented(SOUND.beside(RECORD.to_json()))
    assert read_sound_record(path) == SOUND
    assert read_record(path) == RECORD


@pytest.mark.parametrize("comment", ["a holiday", "[1, 2]", ""])
def test_other_comments_are_passed_over(comment):
    assert json.loads(SOUND.beside(comment)) == {"sound": dataclasses.asdict(SOUND)}


def test_none(silent, commented):
    assert read_sound_record(silent) is None
    assert read_sound_record(commented(RECORD.to_json())) is None
    assert read_sound_record(commented("a holiday")) is None


def test_later_versions(commented):
    told = json.loads(SOUND.beside(None))
    told["sound"]["new"] = 1
    told["sound"]["origin"]["new"] = 1
    assert read_sound_record(commented(json.dumps(told))) == SOUND


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "3"},
        {"seed": True},
        {"prompt": 3},
        {"guidance_scale": "8"},
        {"origin": 3},
        {"origin": {"devices": {}, "dtype": "float32"}},
        {"origin": {"devices": {"unet": 3}, "dtype": "float32", "weights": {}}},
    ],
)
def test_damaged(commented, change):
    told = json.loads(SOUND.beside(None))
    told["sound"] |= change
    with pytest.raises(RecordError, match="its record of the sound is damaged"):
        read_sound_record(commented(json.dumps(told)))


def test_not_an_object(commented):
    with pytest.raises(RecordError, match="damaged"):
        read_sound_record(commented('{"sound": 3}'))
