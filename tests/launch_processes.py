"""Processes of tests/cli/test_launch.py: each is forked, with all imported, and leaves what it says in a file."""

import os
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from fakes import WatchedDit, changed
from helpers import SMALL, own_weights

from kandinsky import get_T2V_pipeline
from kandinsky.cli.main import generate_main


def kill() -> None:
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def stumble() -> None:
    raise ArithmeticError("this rank cannot count")


def run_rank(fail: Callable[[], None], folder: Path, said: Path, variables: dict[str, str]) -> None:
    """Make a video in `folder`; the last rank calls `fail` in the middle of sampling.

    An exception goes to `sys.excepthook`, as in a process of its own; multiprocessing would pass it by.

    Args:
        variables: of a launcher.
    """
    _begin(said, variables)
    try:
        with tempfile.TemporaryDirectory() as weights:
            small = own_weights(Path(weights), SMALL)
            pipe = get_T2V_pipeline("cpu", cache_dir=small, progress=False, parallelism="sequence")
        if pipe.ranks.rank == pipe.ranks.size - 1:
            pipe = changed(pipe, dit=WatchedDit(pipe.dit, lambda index: fail() if index == 2 else None))
        pipe("a cat", folder / "v.mp4", time_length=1, width=64, height=64, seed=1)
        print("finished", flush=True)
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise


def run_command(arguments: list[str], said: Path) -> None:
    """`run_inference_distil.py` with arguments; its output goes to `said`, its errors to a file with `.err` beside."""
    _begin(said, {"OMP_NUM_THREADS": "1"})
    sys.stderr = said.with_suffix(".err").open("w")
    os.dup2(sys.stdout.fileno(), 1)  # of the processes that it starts
    os.dup2(sys.stderr.fileno(), 2)
    sys.exit(generate_main(arguments))


def _begin(said: Path, variables: dict[str, str]) -> None:
    os.environ |= variables
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = said.open("w")
