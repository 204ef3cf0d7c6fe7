"""A rank that fails in the middle of sampling, for test_launch.py: `python failing_rank.py FOLDER`, or forked."""

import os
import signal
import sys
import tempfile
from pathlib import Path

import torch
from helpers import SMALL, own_weights

from kandinsky import get_T2V_pipeline


def kill() -> None:
    print("killed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def stumble() -> None:
    raise ArithmeticError("this rank cannot count")


def run(fail, folder: Path) -> None:
    """Make a video in `folder`; the last rank calls `fail` meanwhile."""
    with tempfile.TemporaryDirectory() as weights:
        small = own_weights(Path(weights), SMALL)
        pipe = get_T2V_pipeline("cpu", cache_dir=small, progress=False, parallelism="sequence")
    step = pipe.dit.step
    is_last = pipe.ranks.rank == pipe.ranks.size - 1
    pipe.dit.step = lambda *args: fail() if is_last and args[-1] == 2 else step(*args)
    pipe("a cat", folder / "v.mp4", time_length=1, width=64, height=64, seed=1)
    print("finished", flush=True)


def run_forked(fail, folder: Path, said: Path, variables: dict[str, str]) -> None:
    """As `run`, in a process that was forked: with a launcher's variables, and what it prints in the file `said`.

    An exception goes to `sys.excepthook`, as in a process of its own; multiprocessing would pass it by.
    """
    os.environ |= variables
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = said.open("w")
    try:
        run(fail, folder)
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise


if __name__ == "__main__":
    run(stumble, Path(sys.argv[1]))
