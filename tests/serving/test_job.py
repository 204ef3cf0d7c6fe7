"""What was asked for, as a value that is kept and read again."""

import dataclasses
from pathlib import Path

import pytest
from helpers import SMALL
from serving_kit import ASKED

from kandinsky.output.paths import IMAGE_ENDINGS, VIDEO_ENDINGS
from kandinsky.serving.job import OPEN, STATUSES, Asked, Job


@pytest.mark.parametrize("text", ["a cat", "été 猫 🐈‍⬛", 'quo"te\\', "two\nlines", "\u2028", "\0", "x" * 4000])
@pytest.mark.parametrize("more", [{}, {"fps": 30, "crf": 1, "codec": "h264", "metadata": False, "seed": 2**63 - 1}])
def test_it_is_read_as_it_was_written(text, more):
    asked = dataclasses.replace(ASKED, text=text, **more)
    line = asked.to_json()
    assert Asked.from_json(line) == asked
    assert "\n" not in line
    assert "null" not in line


@pytest.mark.parametrize("loras", [None, {}, {"one": 0.0}])
def test_no_loras_are_others_than_those_of_the_server(loras):
    asked = dataclasses.replace(ASKED, loras=loras)
    assert Asked.from_json(asked.to_json()) == asked


def test_a_file_is_named_by_the_server():
    for ending in VIDEO_ENDINGS:
        assert dataclasses.replace(ASKED, ending=ending, text="../../x").file_name == f"video{ending}"
    for ending in IMAGE_ENDINGS:
        image = dataclasses.replace(ASKED, ending=ending, time_length=0)
        assert (image.kind, image.file_name) == ("image", f"image{ending}")


def test_the_request_is_the_one_of_a_call():
    request = dataclasses.replace(ASKED, crf=9).request(Path("folder"), model_set=SMALL)
    (job,) = request.jobs
    assert (job.prompt, job.seed, job.path) == ("a cat", 3, Path("folder/video.mp4"))
    with pytest.raises(ValueError, match="width"):
        dataclasses.replace(ASKED, width=65).request(Path("folder"), model_set=SMALL)


@pytest.mark.parametrize("status", STATUSES)
def test_which_jobs_are_open(status):
    job = Job(number=1, id="video_1", owner="me", status=status, asked=ASKED, created=0.0)
    assert job.is_open is (status in OPEN) is (status in ("queued", "in_progress"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.status = "queued"  # type: ignore[misc]
