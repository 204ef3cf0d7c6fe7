"""What the ranks of a group do together."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from kandinsky.errors import DecodeError, StoppedError
from kandinsky.serving import group
from kandinsky.serving.group import Work, begin, follow
from kandinsky.serving.messages import Failed

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
