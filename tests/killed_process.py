"""What tests start in a process of its own to kill it: a process finds its function by the name of a module, and test
files have none that it could import."""

import os
import signal

from kandinsky.factory import get_T2V_pipeline


def interpolate(file, way, program):
    """The command, in a process of its own."""
    from kandinsky.cli.main import main

    os.environ["IMAGEIO_FFMPEG_EXE"] = program
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    raise SystemExit(main(["interpolate", file, "--interpolate-with", way, "--device", "cpu"]))


def extend_and_be_killed(folder, weights):
    """Killed in the second piece."""
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    calls = []

    def kill(*_):
        calls.append(1)
        if len(calls) == 6:
            os.kill(os.getpid(), signal.SIGKILL)

    pipe.extend(folder / "source.mp4", "a cat", folder / "v.mp4", seconds=2, seed=3, on_step=kill)
