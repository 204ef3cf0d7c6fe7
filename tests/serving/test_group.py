"""What the ranks of a group do together; and groups of two processes on the CPU (over gloo), also killed ones."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from helpers import LONG, fork_server
from PIL import Image
from serving_jobs import JOBS, arrive, file_of, made_alone, pipeline_at, place_in
from serving_kit import until
from serving_process import MARK, Pause, starts

from kandinsky.errors import DecodeError, StoppedError
from kandinsky.output.read_clip import read_clip
from kandinsky.serving import group
from kandinsky.serving import scheduler as scheduler_module
from kandinsky.serving.group import Work, begin, follow
from kandinsky.serving.messages import Failed
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store

REQUEST, EXTENSION = Work("video_1", "request", {"one": 0.5}), Work("video_2", "extension", {"one": 0.0})


class Ended(BaseException):
    """In the place of the end of the process."""


class Pipe:
    """A rank that notes what it does; `works` is what the first rank says, and then that it is gone."""

    def __init__(self, *works, size=2, error=None):
        self.did = []
        self._works, self._error = list(works), error
        self.team = SimpleNamespace(size=size)
        self.ranks = SimpleNamespace(share=self._share)

    def _share(self, said):
        if said is not None:
            self.did.append(said)
            return said
        if not self._works:
            raise RuntimeError("Connection closed by peer")
        return self._works.pop(0)

    def use_adapters(self, weights):
        self.did.append(weights)

    def run(self, request):
        self.did.append(("run", request))
        if self._error is not None:
            raise self._error

    def extend(self, video, text, *, seconds):
        self.did.append(("extend", video, text, seconds))


@pytest.fixture(autouse=True)
def ends(monkeypatch):
    def end(code):
        raise Ended(code)

    monkeypatch.setattr(group.os, "_exit", end)


def followed(pipe):
    said = []
    with pytest.raises(Ended):
        follow(pipe, said.append)
    return said


@pytest.mark.parametrize(("size", "did"), [(1, [{"one": 0.5}]), (2, [REQUEST, {"one": 0.5}])])
def test_the_first_rank_tells_the_others_and_merges_with_them(size, did):
    pipe = Pipe(size=size)
    begin(pipe, REQUEST)
    assert pipe.did == did


def test_the_others_do_their_part_of_one_work_after_the_other():
    pipe = Pipe(REQUEST, EXTENSION, Work("video_3", "request"))
    assert followed(pipe) == []
    assert pipe.did == [{"one": 0.5}, ("run", None), {"one": 0.0}, ("extend", Path(), "", 1), ("run", None)]


def test_a_work_that_was_stopped_is_no_failure():
    pipe = Pipe(REQUEST, REQUEST, error=StoppedError("after step 1"))
    assert followed(pipe) == []
    assert len(pipe.did) == 4


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (DecodeError("not finite"), [Failed("video_1", "generation_failed", "DecodeError: not finite")]),
        (RuntimeError("[pair.cc:534] Connection closed by peer [127.0.0.1]:1"), []),  # the job is not at fault
    ],
)
def test_why_it_fails_is_said_and_that_another_is_gone_is_not(error, said):
    assert followed(Pipe(REQUEST, EXTENSION, error=error)) == said


KINDS = ("sequence", "tensor")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return place_in(tmp_path_factory.mktemp("place"))


def run(store, place, parallelism, pause=None):
    """A scheduler before one group."""
    settings = {**place, "processes": 2, "parallelism": parallelism}
    scheduler = Scheduler(store, starts(pause=pause, context=fork_server(), **settings))
    scheduler.start()
    return scheduler


@pytest.fixture(scope="module")
def alone(place, tmp_path_factory):
    return made_alone(pipeline_at(place), tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=KINDS)
def together(request, place, tmp_path_factory):
    """A kind of parallelism, and what an undisturbed group makes of the jobs; in the middle one is cancelled."""
    with Store(tmp_path_factory.mktemp("together")) as store:
        scheduler = run(store, place, request.param)
        stopped = arrive(store, JOBS["extension"])
        ids = {name: arrive(store, asked) for name, asked in JOBS.items()}
        until(lambda: (now := scheduler.live.now(stopped)) and now.step)
        scheduler.stop(stopped)
        files = {name: file_of(store, job_id) for name, job_id in ids.items()}
        assert store.get(stopped).status == "cancelled"
        left = {path.name for path in store.folder_of(stopped).iterdir()}
        assert left == set(JOBS["extension"].inputs.values())  # with which it can be asked for once more
        assert scheduler.hands["w"].all_ends == 0
        scheduler.drain()
        scheduler.wait_until_gone(LONG)
        assert scheduler.hands["w"].worker is None
        yield request.param, files


def pixels(file):
    if file.suffix == ".png":
        return np.asarray(Image.open(file)).astype(int)
    return read_clip(file, "video").frames((64, 64), "cover", fps=16, most=999).numpy().astype(int)


@pytest.mark.slow
def test_a_group_makes_what_one_process_makes(alone, together):
    _, files = together
    for name, file in files.items():
        one, several = pixels(alone[name]), pixels(file)
        assert one.shape == several.shape
        difference = np.abs(one - several)  # in levels of 255: sums are taken in another order
        assert difference.mean() < 0.01, name
        assert difference.max() <= (1 if file.suffix == ".png" else 4), name  # of yuv420p and back
    assert files["usual"].read_bytes() == files["usual again"].read_bytes()
    stills = [pixels(files[name]) for name in ("usual", "without", "other")]
    assert min(np.abs(a - b).max() for a, b in zip(stills, stills[1:] + stills[:1], strict=True)) > 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "stage", "rank"), [("video", "sampling", 1), ("video", "decoding", 0), ("extension", "decoding", 1)]
)
def test_one_process_of_a_group_is_killed(place, together, tmp_path, monkeypatch, job, stage, rank):
    """The job is made again by the next group, the same file to the bit; what was sampled is not sampled again."""
    monkeypatch.setattr(scheduler_module, "PAUSES", (0.01, 0.1))
    parallelism, files = together
    with Store(tmp_path / "data") as store:
        job_id = arrive(store, JOBS[job])
        scheduler = run(store, place, parallelism, Pause(stage, str(tmp_path), rank=rank))
        pid = int(until(lambda: (tmp_path / MARK).is_file() and (tmp_path / MARK).read_text()))
        until(lambda: stage == "sampling" or list(store.folder_of(job_id).rglob("[!.]*.safetensors")))
        os.kill(pid, signal.SIGKILL)
        assert file_of(store, job_id).read_bytes() == files[job].read_bytes()
        done = store.get(job_id)
        assert (done.kills, scheduler.hands["w"].all_ends) == (1, 1)
        assert ("sample" in done.timings) is (stage == "sampling" or job == "extension")
        scheduler.drain()
        scheduler.wait_until_gone(LONG)
