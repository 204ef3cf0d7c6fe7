"""A command of `kandinsky` in this process, which writes down when imports and functions began and ended.

    python -c "from watched import command; command()" FILE generate --text ...      # from benchmarks/

Nothing of the library is changed for that: a module of `FUNCTIONS` gets its functions replaced when it is imported,
before others take them from it. Where launches return before the GPU is done, so do functions here; what waits says so
in `FUNCTIONS`. Nothing heavy may be imported here.
"""

import atexit
import functools
import importlib
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

BEGAN = time.monotonic()
IMPORTS = ("torch", "numpy", "triton", "transformers", "diffusers", "PIL", "kandinsky.factory", "kandinsky.cli.main")
"""Whose imports are timed, with all that they import first."""
FUNCTIONS: Mapping[str, Mapping[str, str]] = {
    "kandinsky.request": {"request_of": "arguments of the call"},
    "kandinsky.factory": {"get_T2V_pipeline": "load"},
    "kandinsky.loading.settings": {"settings_of": "load: settings, headers, memory mode"},
    "kandinsky.parallel.ranks": {"open_group": "load: process group", "Ranks.share_tensor": "shared tensor"},
    "kandinsky.loading.components": {
        "load_t5": "load: T5",  # reading is waited for
        "load_tokenizer": "load: tokenizer",
        "load_dit": "load: DiT",
        "load_vae": "load: VAE",
    },
    "kandinsky.checkpoint.gpu_copy": {"read_all": "load: reading"},
    "kandinsky.checkpoint.fingerprint": {"fingerprint": "load: fingerprint"},
    "kandinsky.model.attention_choice": {
        "prepare": "load: attention compiled",
        "unasked": "load: attention tried",
        "choose_attention": "load: attention chosen",
    },
    "kandinsky.model.trial": {"operations_that_run": "load: kernels tried"},
    "kandinsky.memory.modes": {"offload_modulation_": "load: modulation off the GPU"},
    "kandinsky.loading.parts": {"modulation_table": "load: modulation table"},
    "kandinsky.text.encoder": {"TextEncoder.__call__": "prompt encoded"},
    "kandinsky.runner": {
        "Runner.encode": "request: text",
        "Runner.sample": "request: sample",  # waited for after each step
        "Runner._begin": "request",
    },
    "kandinsky.model.dit": {"DiT.prepare": "request: context"},
    "kandinsky.progress": {"Steps.__call__": "request: step waited for"},
    "kandinsky.output.finisher": {"Finisher.begin": "request: decode"},  # waited for
    "kandinsky.output.video": {
        "VideoWriter.__init__": "request: ffmpeg started",
        "VideoWriter.write": "request: frames to ffmpeg",
        "VideoWriter.finish": "request: mp4 finished",
    },
}
"""Of each module: functions, and what their time is called."""
_spans: list[tuple[str, str, float, float]] = []


@contextmanager
def span(name: str) -> Iterator[None]:
    """Write down when the body began and ended, on the clock of all processes, and in which thread."""
    start = time.monotonic()
    try:
        yield
    finally:
        _spans.append((name, threading.current_thread().name, start, time.monotonic()))


def watched(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function, with a span around each call."""

    @functools.wraps(function)
    def call(*arguments: Any, **settings: Any) -> Any:
        with span(name):
            return function(*arguments, **settings)

    return call


class _Watched(Loader):
    """Another loader, with a span around it, and functions that are watched."""

    def __init__(self, loader: Loader, name: str):
        self._loader, self._name = loader, name

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if self._name in IMPORTS:
            with span(f"import {self._name}"):
                self._loader.exec_module(module)
        else:
            self._loader.exec_module(module)
        for path, name in FUNCTIONS.get(self._name, {}).items():
            owner, _, leaf = path.rpartition(".")
            place = getattr(module, owner) if owner else module
            setattr(place, leaf, watched(getattr(place, leaf), name))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


class Finder(MetaPathFinder):
    """Finds what is watched, with the other finders' help."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname not in IMPORTS and fullname not in FUNCTIONS:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(fullname, path, target)) is not None:
                assert spec.loader is not None
                spec.loader = _Watched(spec.loader, fullname)
                return spec
        return None


def write(file: Path) -> None:
    """All spans so far; of several processes each has a file of its own."""
    rank = os.environ.get("RANK", "0")
    found = {"began": BEGAN, "ended": time.monotonic(), "spans": _spans}
    file.with_name(f"{file.name}.{rank}").write_text(json.dumps(found), encoding="utf-8")


def command() -> None:
    """Run the command of `sys.argv`; the first argument is the file to write."""
    file = Path(sys.argv.pop(1))
    sys.meta_path.insert(0, Finder())
    main = importlib.import_module("kandinsky.cli.main").main
    ending = importlib.import_module("kandinsky.cli.ending")

    def run() -> int:
        atexit.register(write, file)
        with span("the command"):
            return main(sys.argv[1:])

    ending.end_with(run)
