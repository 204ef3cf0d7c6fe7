"""What tests share: where weights and golden files are, sizes small enough for a CPU, and measures of a difference."""

import contextlib
import dataclasses
import json
import multiprocessing
import os
import random
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512, ModelSet

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "weights"
"""Random weights of the published architecture, a few megabytes; `ROOT / "weights" / "tiny"` is trained."""
SMALL = dataclasses.replace(FLASH_512, sizes=((64, 64), (96, 64)))
"""The model set with sizes that a CPU makes in a second; see the fixture `small_weights`."""
LONG = 120.0
"""Seconds after which a test gives up what it waits for: on however busy a machine, only a fault takes that long."""


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have everything imported: each is there in a moment.

    The server looks for `preloaded` on a path of its own, and goes on without it where it finds none: Python before
    3.11.9 and 3.12.3 does not hand on ours.
    """
    import pytest  # not in each process that imports this module

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["preloaded"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        forkserver.ensure_running()
    return context


def free_port() -> int:
    """A port of this machine for processes that find each other by its number.

    It is none of those that systems give to whoever names none (from 32768 on Linux, 49152 elsewhere): between this
    look and its use, a connection or a server of another test could get such a one.
    """
    for port in random.SystemRandom().sample(range(20_000, 32_000), 1000):
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port
    raise OSError("a thousand ports are taken")


def running(numbers: Sequence[str]) -> list[str]:
    """Of processes, the states of those that have not ended."""
    found = subprocess.run(["ps", "-o", "stat=", "-p", ",".join(numbers)], capture_output=True, text=True, check=False)  # noqa: S607
    return [state for state in found.stdout.split() if not state.startswith("Z")]


def golden_folder() -> Path:
    """The golden files beside the repository where they are, else the copy in it."""
    beside = ROOT.parent / "shared" / "golden"
    return beside if beside.is_dir() else Path(__file__).parent / "golden"


def golden_case(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Arguments of a published pipeline call, and what it returned."""
    path = golden_folder() / f"pipeline_{name}.safetensors"
    with safe_open(path, "pt") as handle:
        call = json.loads(handle.metadata()["call"])
    return call, load_file(path)


def wait_for_a_signal(seconds: float = LONG) -> None:
    """Sleep until a signal ends it. One that came just before a single long sleep would be seen after it only."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.01)


def until(true: Callable[[], Any], seconds: float = LONG) -> Any:
    """Wait until something is so, and return it."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


def own_weights(folder: Path, model_set: ModelSet) -> Path:
    """The tiny weights in `folder`, declared as another model set."""
    folder.mkdir(exist_ok=True)
    for part in TINY.iterdir():
        (folder / part.name).unlink(missing_ok=True)
        (folder / part.name).symlink_to(part)
    write_model_set(folder, model_set)
    return folder


def just_saved(folder: Path) -> Path:
    """What is in a folder of weights, as a save leaves it that was killed before its parts were in their places."""
    new = folder / SAVED
    new.mkdir()
    for part in [path for path in folder.iterdir() if path != new]:
        part.rename(new / part.name)
    return folder


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    value, reference = value.double().cpu(), reference.double().cpu()
    return ((value - reference).norm() / reference.norm()).item()


def psnr(frames: torch.Tensor, reference: torch.Tensor) -> float:
    return 10 * torch.log10(255**2 / (frames.double() - reference.double()).square().mean()).item()
