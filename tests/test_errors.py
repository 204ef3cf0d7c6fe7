"""One base class, and messages that repeat no more of a value than a person reads."""

import pytest

from kandinsky import errors
from kandinsky.errors import KandinskyError, NothingFits, shown


@pytest.mark.parametrize(
    "name",
    ["CheckpointError", "DecodeError", "LaunchError", "NothingFits", "RecordError", "StoppedError", "VideoError"],
)
def test_all_have_one_base_class(name):
    assert issubclass(getattr(errors, name), KandinskyError)
    assert issubclass(KandinskyError, RuntimeError)


def test_a_damaged_file_is_no_wrong_argument():
    for name in ("CheckpointError", "RecordError", "DecodeError"):
        assert not issubclass(getattr(errors, name), ValueError)
    assert issubclass(NothingFits, ValueError)  # a request that is too large for this machine is one


def test_values_are_shown_shortly():
    assert shown("a cat") == "'a cat'"
    assert shown(3) == "3"
    assert shown(b"x") == "b'x'"
    long = shown("x" * 1_000_000)
    assert len(long) < 250
    assert long.endswith("... (1000000 characters)")
    assert len(shown(list(range(10_000)))) < 250
