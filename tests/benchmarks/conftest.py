"""The scripts of benchmarks/ in this process: they import each other by their plain names, as scripts do."""

import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from benchmark_helpers import ABOUT, BENCHMARKS, numbers


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """A script by its name. Such names as `memory` are gone again after the test."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(BENCHMARKS)):
            del sys.modules[name]


@pytest.fixture
def run(script: Callable[[str], ModuleType], capsys: pytest.CaptureFixture[str]) -> Callable[..., dict[str, Any]]:
    """Run a script as a stranger tries it out; gives the figures of its last line, all of them finite."""

    def run(name: str, *arguments: str) -> dict[str, Any]:
        script(name).main(["--size", "tiny", "--device", "cpu", *arguments])
        figures = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert set(figures) >= ABOUT
        assert (figures["device"], figures["size"]) == ("cpu", "tiny")
        assert all(map(math.isfinite, numbers(figures)))
        return figures

    return run
