"""Arguments to a request: jobs, seeds, paths; the file system is asked apart."""

import dataclasses

import pytest
from helpers import SMALL

from kandinsky.output.options import OutputOptions
from kandinsky.request import DEFAULT_PATH, MAX_SEED, check_targets, request_of

SIZE = {"time_length": 1, "width": 96, "height": 64}


def test_jobs_count_up():
    request = request_of(["a cat", "a dog"], "v.mp4", 2, seed=7, model_set=SMALL, **SIZE)
    assert [(job.prompt, job.seed, job.path.name) for job in request.jobs] == [
        ("a cat", 7, "v-0.mp4"),
        ("a cat", 8, "v-1.mp4"),
        ("a dog", 9, "v-2.mp4"),
        ("a dog", 10, "v-3.mp4"),
    ]
    assert (request.shape.width, request.shape.height, request.output.codec) == (96, 64, "h264")


def test_a_seed_is_drawn():
    seeds = {request_of("a cat", model_set=SMALL, **SIZE).jobs[0].seed for _ in range(3)}
    assert len(seeds) == 3
    assert all(0 <= seed <= MAX_SEED for seed in seeds)


@pytest.mark.parametrize(
    ("path", "options", "kind"),
    [
        (DEFAULT_PATH, OutputOptions(), "pil"),  # the published default, which no image can have
        (None, OutputOptions(), "pil"),
        ("cat.png", OutputOptions(), "file"),
        ("cat.png", OutputOptions(type="np"), "np"),
    ],
)
def test_kind_of_an_image(path, options, kind):
    request = request_of("a cat", path, time_length=0, width=64, height=64, model_set=SMALL, options=options)
    assert request.output.kind == kind
    assert (request.jobs[0].path is not None) == (kind == "file")


def test_the_file_system_is_asked_apart(tmp_path):
    request = request_of("a cat", tmp_path / "gone" / "v.mp4", model_set=SMALL, **SIZE)
    with pytest.raises(ValueError, match="does not exist; create it first"):
        check_targets(request)
    (tmp_path / "gone").mkdir()
    check_targets(request)


def test_a_request_is_frozen():
    request = request_of("a cat", model_set=SMALL, **SIZE)
    for value, name in ((request, "jobs"), (request.jobs[0], "seed"), (request.shape, "width")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, None)
