"""JSON files that belong to weights."""

import pytest
from checkpoint_helpers import POINTER

from kandinsky.checkpoint.json_file import json_of
from kandinsky.errors import CheckpointError


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_utf8_whatever_the_locale(tmp_path, mark):
    (tmp_path / "a.json").write_bytes(mark + '{"name": "Кандинский"}'.encode())
    assert json_of(tmp_path / "a.json", what="a thing") == {"name": "Кандинский"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", r"a\.json is not a thing: it is not JSON"),
        (b"", r"a\.json is not a thing"),
        ('{"a": "é"}'.encode("latin-1"), r"a\.json is not a thing: it is not UTF-8"),
        (POINTER.encode(), r"a\.json is a pointer of git-LFS"),
    ],
)
def test_what_is_not_json(tmp_path, content, message):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        json_of(tmp_path / "a.json", what="a thing")


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"a\.json"):
        json_of(tmp_path / "a.json", what="a thing")
