"""What the tests of the benchmarks share."""

from collections.abc import Iterator

from helpers import ROOT

BENCHMARKS = ROOT / "benchmarks"
ABOUT = {"device", "torch", "size"}
"""What every script's figures begin with."""


def numbers(value: object) -> Iterator[float]:
    """All numbers in what JSON was read to."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from numbers(each)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value


def all_positive(*values: object) -> bool:
    """Whether there are numbers in each of them, all of them above 0."""
    found = [list(numbers(value)) for value in values]
    return all(found) and all(number > 0 for each in found for number in each)
