"""A rank that fails in the middle of sampling, for test_launch.py: `python failing_rank.py (kill | raise) FOLDER`."""

import os
import signal
import sys

from conftest import SMALL, TINY

from kandinsky import get_T2V_pipeline


def fail(how: str) -> None:
    if how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ArithmeticError("this rank cannot count")


if __name__ == "__main__":
    how, folder = sys.argv[1:]
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, progress=False, parallelism="sequence")
    pipe.model_set = SMALL
    step = pipe.dit.step
    is_last = pipe.ranks.rank == pipe.ranks.size - 1
    pipe.dit.step = lambda *args: fail(how) if is_last and args[-1] == 2 else step(*args)
    pipe("a cat", f"{folder}/v.mp4", time_length=1, width=64, height=64, seed=1)
    print("finished")
