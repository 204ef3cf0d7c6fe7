"""One base class for every exception of ours, and values in messages."""

import inspect
import re
from pathlib import Path

import pytest

import kandinsky
from kandinsky import errors
from kandinsky.errors import SHOWN, CheckpointError, KandinskyError, NothingFits, RecordError, shown

PACKAGE = Path(kandinsky.__file__).parent
KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("kind", KINDS)
def test_all_have_one_base(kind):
    assert issubclass(kind, KandinskyError)
    assert issubclass(kind, RuntimeError)
    assert kind.__doc__


INSIDE_THE_SERVER = {"answers.py", "arrivals.py", "maker.py"}
"""Their exceptions become answers or notes in the server, and reach no caller."""


def test_no_other_module_has_exceptions_of_its_own():
    """So that whoever catches `KandinskyError` catches them all."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"\s*class \w+\(.*(Error|Exception)\b.*\):", line):
                found.setdefault(path.name, []).append(line)
    assert found.keys() - INSIDE_THE_SERVER == {"errors.py"}
    assert len(found["errors.py"]) == len(KINDS)


def test_a_damaged_file_is_no_wrong_argument():
    assert not issubclass(CheckpointError, ValueError)
    assert not issubclass(RecordError, ValueError)
    assert issubclass(NothingFits, ValueError)  # it is an argument's fault: another length or precision would fit


def test_values_in_messages():
    assert shown("a cat") == "'a cat'"
    assert shown(b"\0") == r"b'\x00'"
    assert shown(None) == "None"
    long = "x" * (SHOWN + 1)
    assert shown(long) == f"'{'x' * (SHOWN - 1)}... ({len(long)} characters)"
    assert shown("x" * SHOWN) == repr("x" * SHOWN)
    numbers = list(range(1000))
    assert shown(numbers) == f"{repr(numbers)[:SHOWN]}... ({len(repr(numbers))} characters)"
