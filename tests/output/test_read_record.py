"""The record out of any file that the library writes."""

import pytest
from helpers import SMALL

from kandinsky.errors import RecordError
from kandinsky.output.read_record import read_record

CALL = {"width": 64, "height": 64, "seed": 3}


@pytest.mark.parametrize("name", ["v.mp4", "v.webm", "v.gif", "frames/", "i.jpg"])
def test_every_kind_of_file(pipe, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    seconds = 0 if name.startswith("i.") else 1
    record = read_record(pipe("a cat", name, time_length=seconds, **CALL).path)
    assert (record.prompt, record.seed, record.time_length) == ("a cat", 3, seconds)
    assert record.origin == pipe.origin
    assert (record.width, record.height) in SMALL.sizes


def test_what_has_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_record(tmp_path / "v.mp4")
    (tmp_path / "v.mp4").write_bytes(b"no video")
    for path in (tmp_path / "v.mp4", tmp_path):
        with pytest.raises(RecordError, match="has no record of a generation"):
            read_record(path)
