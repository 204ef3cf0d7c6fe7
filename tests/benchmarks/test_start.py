"""Starts of the command in processes of their own, and what is written down in them."""

import importlib
import sys
from functools import reduce

import pytest
from benchmark_helpers import all_positive


def test_all_that_is_watched_is_there(script):
    """A function that gets another name is not silently missing in the table."""
    for module, functions in script("watched").FUNCTIONS.items():
        for path in functions:
            assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))


def test_what_is_imported_is_watched(script, tmp_path, monkeypatch):
    watched = script("watched")
    (tmp_path / "some_module.py").write_text("class A:\n    def f(self): return 1\ndef g(x): return x + A().f()\n")
    (tmp_path / "other_module.py").write_text("from some_module import g\nassert g(1) == 2\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(watched, "_spans", [])
    monkeypatch.setattr(watched, "IMPORTS", ("some_module",))
    monkeypatch.setattr(watched, "FUNCTIONS", {"some_module": {"A.f": "method", "g": "function"}})
    monkeypatch.setattr(sys, "meta_path", [watched.Finder(), *sys.meta_path])
    try:
        importlib.import_module("other_module")
        assert [entry[0] for entry in watched._spans] == ["import some_module", "method", "function"]
        _, (_, _, began, ended), (_, thread, first, final) = watched._spans
        assert first <= began <= ended <= final
        assert thread == "MainThread"
        assert sys.modules["some_module"].__file__ == str(tmp_path / "some_module.py")
    finally:
        for name in ("some_module", "other_module"):
            sys.modules.pop(name, None)


def test_a_table_of_two_processes(script):
    start = script("start")
    one = {"spans": [["a", "MainThread", 0.0, 1.0], ["a", "MainThread", 2.0, 9.0], ["b", "t", 3.0, 3.5]]}
    other = {"spans": [["a", "MainThread", 0.5, 1.0]]}
    runs = [{"ranks": [one, other]}] * 2
    assert start.table(runs).splitlines()[2:] == [
        "| a | 0.000 | 1.000 | 0.500 | 0.500 |",
        "| b | 3.000 | 0.500 |  |  |",
    ]


def test_seconds_of_the_last_request(script):
    spans = [["request", "t", 1.0, 2.0], ["request", "t", 4.0, 5.5], ["request: mp4 finished", "t", 5.5, 6.0]]
    assert script("start").last_request({"spans": spans}) == 2.0


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [[], ["--requests", "2"], ["--gpus", "2"]])
def test_from_the_command_to_its_file(run, arguments):
    found = run("start", "--runs", "0", *arguments)
    (only,) = found["runs"]
    assert len(only["ranks"]) == (2 if "--gpus" in arguments else 1)
    assert all_positive(found["seconds"], found["limit_s"])
    spans = only["ranks"][0]["spans"]
    names = [entry[0] for entry in spans]
    assert names.count("request: mp4 finished") == (2 if "--requests" in arguments else 1)
    needed = {"Python itself", "import torch", "load", "load: T5", "load: DiT", "load: VAE", "request: decode"}
    assert needed | {"request: sample", "request: frames to ffmpeg", "end of the process"} <= set(names)
    assert all(began <= ended <= found["seconds"] + 0.1 for _, _, began, ended in spans)
