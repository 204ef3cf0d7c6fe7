"""A process that waits to be killed, for tests/output/test_faults.py: it goes through the stages of `generate`.

For each stage it forks, so that the weights are loaded once; the child says which stage it is in, and its process
number. What it prints and the exit code go into a file.
"""

import os
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from fakes import DisturbedVae, WatchedDit, changed, ffmpeg_script
from helpers import wait_for_a_signal

from kandinsky import Kandinsky4T2VPipeline, get_T2V_pipeline
from kandinsky.cli.common import Parser, parse_and_run
from kandinsky.cli.generate import add_generate_arguments, generate
from kandinsky.output.unfinished import SUFFIX

STAGES = tuple((stage, how) for stage in ("sampling", "decode", "between", "encoding") for how in ("SIGKILL", "SIGINT"))
"""In "between", frames are made between those that are decoded."""
TAKES_ALL = 'cat > /dev/null; touch "${0%/*}/taken"; while kill -0 $PPID 2> /dev/null; do sleep 0.1; done'
"""An encoder that does not come to its end before the process that it encodes for."""


def stop_in(stage: str, pipe: Kandinsky4T2VPipeline, folder: Path, wait: Callable[[], object]) -> Kandinsky4T2VPipeline:
    """A pipeline that waits in the middle of a stage, once the latents of a finished sampling are in their file."""

    def saved() -> None:
        while not (folder / f"v{SUFFIX}").exists():
            time.sleep(0.01)

    if stage == "sampling":
        return changed(pipe, dit=WatchedDit(pipe.dit, lambda index: wait() if index == 2 else None))
    if stage in ("decode", "between"):
        return changed(pipe, vae=DisturbedVae(pipe.vae, lambda _number: (saved(), wait())))
    (folder / "encoder").mkdir()
    os.environ["IMAGEIO_FFMPEG_EXE"] = ffmpeg_script(folder / "encoder", TAKES_ALL)
    return pipe


def run(folder: Path, connection: Connection, weights: Path) -> None:
    """Go through `STAGES` in `FOLDER/STAGE-HOW`."""

    def wait() -> None:
        connection.send((stage, os.getpid()))
        wait_for_a_signal()

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    torch.set_num_threads(1)  # threads do not survive a fork
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, progress=False)
    asked = ["--text", "a cat", "--time-length", "1", "--width", "64", "--height", "64", "--seed", "3"]
    for stage, how in STAGES:
        target = folder / f"{stage}-{how}"
        child = os.fork()
        if child == 0:
            stopping = stop_in(stage, pipe, target, wait)
            sys.stderr = (target / "said").open("w")
            more = ["--interpolate", "2"] if stage == "between" else []
            place = ["--device", "cpu", "--weights", str(weights), "--save-path", str(target / "v.mp4")]
            parser = Parser()
            add_generate_arguments(parser)
            code = parse_and_run(
                parser,
                [*place, *asked, *more],
                lambda parsed, pipe=stopping: generate(parsed, arguments=[], load=lambda *_, **__: pipe),
            )
            print(code, file=sys.stderr, flush=True)
            os._exit(0)
        if stage == "encoding":
            while not (target / "encoder" / "taken").exists():
                time.sleep(0.01)
            connection.send((stage, child))
        os.wait()
