"""Lines of the log: one line of JSON each, whatever is told, and never the end of who tells it."""

import io
import json
import logging
import threading
from pathlib import Path

import pytest

from kandinsky.serving.log import Lines, Log


def test_a_line_is_json():
    stream = io.StringIO()
    Log(stream)("job posted", job="video_1", path=Path("x"), error='quo"te\n\r\u2028', number=1, jobs=["a"])
    (line,) = stream.getvalue().split("\n")[:-1]
    found = json.loads(line)
    assert found.pop("time") > 0
    assert found == {
        "event": "job posted", "job": "video_1", "path": "x", "error": 'quo"te\n\r\u2028', "number": 1, "jobs": ["a"]
    }  # fmt: skip


def test_lines_of_several_threads_do_not_mix():
    stream = io.StringIO()
    log = Log(stream)

    def work():
        for number in range(100):
            log("said", text="x" * 200, number=number)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len([json.loads(line) for line in stream.getvalue().splitlines()]) == 800


class Full(io.StringIO):
    """A file on a disk that is full."""

    def flush(self):
        raise OSError(28, "No space left on device")


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [Full(), closed(), io.TextIOWrapper(io.BytesIO(), encoding="ascii")])
def test_a_stream_that_cannot_be_written_is_no_fault_of_the_job(stream):
    """The scheduler tells what it does: were that to fail it, no job would be made any more."""
    Log(stream)("job posted", prompt="猫\ud800")


def test_half_a_character_can_be_written(tmp_path):
    with (tmp_path / "log").open("w", encoding="utf-8") as stream:
        Log(stream)("job failed", error="a\ud800")
    assert json.loads((tmp_path / "log").read_text(encoding="utf-8"))["event"] == "job failed"


def test_what_a_library_says_is_a_line_too():
    stream = io.StringIO()
    logger = logging.getLogger("a library")
    logger.addHandler(lines := Lines(Log(stream)))
    try:
        logger.warning("no %s\nhere", "room")
        try:
            raise KeyError("x")
        except KeyError:
            logger.exception("failed")
    finally:
        logger.removeHandler(lines)
    first, second = (json.loads(line) for line in stream.getvalue().splitlines())
    assert (first["event"], first["message"]) == ("server warning", "no room\nhere")
    assert (second["event"], second["message"]) == ("server error", "failed")
    assert "KeyError: 'x'" in second["traceback"]
