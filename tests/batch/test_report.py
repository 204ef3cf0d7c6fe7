"""The report: what it says, and what it tells a restart."""

import json
import threading
from dataclasses import replace

import pytest
from helpers import SMALL

from kandinsky.batch.prompts import make_items
from kandinsky.batch.report import NAME, Report

SETTINGS = {"seed": 1, "time_length": 0, "width": 64, "height": 64}


def items_of(*prompts, **settings):
    return make_items(prompts, {**SETTINGS, **settings}, model_set=SMALL)


def lines_of(report):
    return [json.loads(line) for line in report.path.read_text().splitlines() if line]


def put(report, item, content=b"new"):
    """A complete file takes its place, as they all do: as another one."""
    path = report.path_of(item)
    other = path.with_name("other")
    other.write_bytes(content)
    other.replace(path)


@pytest.fixture
def report(tmp_path):
    return Report(tmp_path)


def test_a_line_for_each_thing_that_happened(report, tmp_path):
    cat, dog = items_of("a cat", "a dog")
    report.started(cat)
    put(report, cat)
    report.done(cat, {"timings": {"total": 1.5}})
    report.started(dog)
    report.failed(dog, ArithmeticError("odd"))
    lines = lines_of(report)
    assert report.path == tmp_path / NAME
    assert [(line["status"], line["number"], line["seed"]) for line in lines] == [
        ("started", 1, 1), ("done", 1, 1), ("started", 2, 2), ("failed", 2, 2)
    ]  # fmt: skip
    assert lines[1]["asked"] == dict(cat.asked)
    assert lines[1]["timings"] == {"total": 1.5}
    assert lines[3]["error"] == "ArithmeticError: odd"


def test_everything_is_left_at_first(report):
    items = items_of("a cat", "a dog")
    assert report.left(items) == list(items)
    assert not report.path.exists()


def test_what_is_done_is_not_left(report):
    cat, dog = items_of("a cat", "a dog")
    report.started(cat)
    put(report, cat)
    report.done(cat, {})
    assert report.left([cat, dog]) == [dog]


def test_what_is_gone_is_left_again(report):
    (cat,) = items_of("a cat")
    put(report, cat)
    report.done(cat, {})
    report.path_of(cat).unlink()
    assert report.left([cat]) == [cat]


@pytest.mark.parametrize("change", [{"seed": 2}, {"width": 96}, {"metadata": False}])
def test_what_was_asked_for_differently_is_left(report, change):
    (cat,) = items_of("a cat")
    put(report, cat)
    report.done(cat, {})
    others = items_of("a cat", **change)
    assert report.left(others) == list(others)
    assert report.left(items_of("another cat")) == list(items_of("another cat"))


def test_a_drawn_seed_is_no_difference(report):
    (cat,) = items_of("a cat", seed=None)
    report.started(cat)
    put(report, cat)
    report.done(cat, {})
    again = items_of("a cat", seed=None)
    assert again[0].job.seed != cat.job.seed
    assert report.left(again) == []


@pytest.mark.parametrize("status", ["started", "failed"])
def test_a_file_that_came_later_is_done(report, status):
    """Of a process that was killed between the file and its line, or of `kandinsky resume`."""
    (cat,) = items_of("a cat", seed=None)
    put(report, cat, b"old")
    report.started(cat)
    if status == "failed":
        report.failed(cat, OSError("disk full"))
    assert report.left([cat]) == [cat]  # what stands there is still the old one
    put(report, cat)
    assert report.left(items_of("a cat", seed=None)) == []
    last = lines_of(report)[-1]
    assert (last["status"], last["seed"]) == ("done", cat.job.seed)  # with which it was made


def test_what_killed_processes_left_is_removed(report, tmp_path):
    cat, dog, cow = items_of("a cat", "a dog", "a cow", time_length=1)
    put(report, cat)
    report.done(cat, {})
    report.started(dog)
    put(report, dog)
    stale = [
        tmp_path / name
        for name in (".0002-01234567.partial.mp4", ".0002.latents-01234567.partial.safetensors",
                     ".0003-01234567.partial.mp4", ".0003-01234567.partial.ffmetadata")
    ]  # fmt: skip
    kept = [tmp_path / name for name in (".mine", "0003.latents.safetensors")]
    for path in (*stale, *kept):
        path.touch()
    assert report.left([cat, dog, cow]) == [cow]
    assert not any(path.exists() for path in stale)
    assert all(path.exists() for path in kept)


@pytest.mark.parametrize("rest", ['{"status": "done", "asked": {"save_', "null", "[]", "{}", '{"asked": 3}', "\xff"])
def test_lines_that_are_none_are_passed_over(report, rest):
    """The last one of a killed process ends anywhere, and the next one begins a line of its own."""
    cat, dog = items_of("a cat", "a dog")
    put(report, cat)
    report.done(cat, {})
    report.path.write_bytes(report.path.read_bytes() + rest.encode("latin-1"))
    put(report, dog)
    report.done(dog, {})
    assert report.left([cat, dog]) == []


def test_several_may_write_at_a_time(report):
    items = items_of(*map(str, range(40)))

    def write(part):
        for item in part:
            report.started(item)
            report.failed(item, ArithmeticError("x" * 2000))

    threads = [threading.Thread(target=write, args=(items[index::4],)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = lines_of(report)
    assert len(lines) == 80
    assert sorted(line["number"] for line in lines if line["status"] == "failed") == list(range(1, 41))


def test_a_folder_of_frames(report):
    (cat,) = make_items([{"text": "a cat", "save_path": "frames/"}], {**SETTINGS, "time_length": 1}, model_set=SMALL)
    report.started(cat)
    report.path_of(cat).mkdir()
    report.done(cat, {})
    assert report.left([cat]) == []
    assert report.left([replace(cat, asked={**cat.asked, "fps": 9})]) != []
