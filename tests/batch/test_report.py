"""The report of a batch tells a restart what is done, also after a kill."""

import json

from helpers import SMALL

from kandinsky.batch.prompts import make_items
from kandinsky.batch.report import NAME, Report

ITEMS = make_items(["a cat", "a dog"], {"seed": 1, "time_length": 1, "width": 64, "height": 64}, model_set=SMALL)
CAT, DOG = ITEMS


def put(folder, item, content):
    """As a finished video takes its place: another file than the one before."""
    new = folder / "new"
    new.write_bytes(content)
    new.replace(folder / item.name)


def statuses(folder):
    return [json.loads(line)["status"] for line in (folder / NAME).read_text().splitlines() if line]


def test_what_is_done_is_not_left(tmp_path):
    report = Report(tmp_path)
    assert report.left(ITEMS) == [CAT, DOG]
    report.started(CAT)
    put(tmp_path, CAT, b"video")
    report.done(CAT, {"timings": {}})
    assert report.left(ITEMS) == [DOG]
    put(tmp_path, CAT, b"another")
    assert report.left(ITEMS) == [DOG]  # whoever replaced it, it is there
    (tmp_path / CAT.name).unlink()
    assert report.left(ITEMS) == [CAT, DOG]


def test_a_file_that_came_after_the_kill_is_done(tmp_path):
    """Started, put in its place, and killed before it could be noted."""
    report = Report(tmp_path)
    put(tmp_path, CAT, b"older")
    report.started(CAT)
    assert report.left(ITEMS) == [CAT, DOG]  # what stood there before is not the result
    put(tmp_path, CAT, b"video")
    assert report.left(ITEMS) == [DOG]
    assert statuses(tmp_path) == ["started", "done"]


def test_a_failed_item_is_left_until_it_is_resumed(tmp_path):
    report = Report(tmp_path)
    report.started(DOG)
    report.failed(DOG, RuntimeError("broken"))
    assert report.left(ITEMS) == [CAT, DOG]
    put(tmp_path, DOG, b"resumed")
    assert report.left(ITEMS) == [CAT]


def test_a_line_that_was_cut_off_is_passed_over(tmp_path):
    report = Report(tmp_path)
    put(tmp_path, CAT, b"video")
    report.done(CAT, {})
    with (tmp_path / NAME).open("ab") as file:
        file.write(b'\n{"status": "failed", "asked": {"save_path": "0001.mp')
    assert report.left(ITEMS) == [DOG]
    report.done(CAT, {})
    assert statuses_of_whole_lines(tmp_path) == ["done", "done"]


def statuses_of_whole_lines(folder):
    found = []
    for line in (folder / NAME).read_text().splitlines():
        try:
            found.append(json.loads(line)["status"])
        except ValueError:
            continue
    return found


def test_something_else_was_asked_for(tmp_path):
    report = Report(tmp_path)
    put(tmp_path, CAT, b"video")
    report.done(CAT, {})
    (other, _) = make_items(
        ["a cow", "a dog"], {"seed": 1, "time_length": 1, "width": 64, "height": 64}, model_set=SMALL
    )
    assert report.left([other]) == [other]
