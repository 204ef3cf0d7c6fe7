"""A process that waits to be killed, for tests/output/test_unfinished.py: it goes through the stages of `generate`.

For each stage it forks, so that the weights are loaded once; the child says which stage it is in, and its process
number. What it prints and the exit code go into a file.
"""

import os
import signal
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from kandinsky import get_T2V_pipeline
from kandinsky.cli import generate as command
from kandinsky.cli.main import main
from kandinsky.output.video import VideoWriter

STAGES = tuple((stage, how) for stage in ("sampling", "decode", "encoding") for how in ("SIGKILL", "SIGINT"))


def stop_in(stage: str, pipe, wait) -> None:
    """Let the pipeline wait in the middle of a stage, once the latents of a finished sampling are in their file."""
    if stage == "sampling":
        step = pipe.dit.step
        pipe.dit.step = lambda *args: wait() if args[-1] == 2 else step(*args)
    elif stage == "decode":
        decode = pipe.vae.decode

        def first_chunk(latents, **settings):
            yield next(decode(latents, **settings))
            time.sleep(0.5)
            wait()

        pipe.vae.decode = first_chunk
    else:
        VideoWriter.finish = lambda _: (time.sleep(0.5), wait())


def run(folder: Path, connection: Connection, weights: Path) -> None:
    """Go through `STAGES` in `FOLDER/STAGE-HOW`."""

    def wait() -> None:
        connection.send((stage, os.getpid()))
        time.sleep(60)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    torch.set_num_threads(1)  # threads do not survive a fork
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, progress=False)
    command.load_pipeline = lambda *_, **__: pipe
    asked = ["--text", "a cat", "--time-length", "1", "--width", "64", "--height", "64", "--seed", "3"]
    for stage, how in STAGES:
        if os.fork() == 0:
            stop_in(stage, pipe, wait)
            target = folder / f"{stage}-{how}"
            sys.stderr = (target / "said").open("w")
            place = ["--device", "cpu", "--weights", str(weights), "--save-path", str(target / "v.mp4")]
            code = main(["generate", *place, *asked])
            print(code, file=sys.stderr, flush=True)
            os._exit(0)
        os.wait()
