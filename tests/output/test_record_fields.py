"""Fields of what is read from a record."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import pytest

from kandinsky.output.record_fields import check_types, known_fields


@dataclass(frozen=True)
class Made:
    count: int
    share: float
    flag: bool
    marks: Mapping[str, str]
    name: str | None = None


MADE = Made(3, 0.5, True, {"a": "b"})


def test_keys_of_later_versions_are_passed_over():
    assert known_fields(Made, {"count": 1, "later": 2}) == {"count": 1}


@pytest.mark.parametrize("right", [{}, {"share": 1}, {"name": "x"}, {"marks": {}}])
def test_right_types(right):
    check_types(replace(MADE, **right))


@pytest.mark.parametrize(
    "wrong", [{"count": True}, {"count": 1.0}, {"share": "1"}, {"share": False}, {"flag": 1}, {"marks": {"a": 1}},
              {"marks": []}, {"name": 1}],
)  # fmt: skip
def test_wrong_types_are_named(wrong):
    with pytest.raises(TypeError, match=f"{next(iter(wrong))} is "):
        check_types(replace(MADE, **wrong))
