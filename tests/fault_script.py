"""Waits to be killed, for test_faults.py: `python fault_script.py FOLDER` goes through the stages of a generation.

For each stage it forks, so that the weights are loaded once; the child says `STAGE PID` when it is in that stage.
"""

import os
import signal
import sys
import time
from pathlib import Path

import torch
from conftest import SMALL, TINY

from kandinsky import get_T2V_pipeline
from kandinsky.video_io import VideoWriter


def wait(stage: str) -> None:
    print(stage, os.getpid(), flush=True)
    time.sleep(60)


def stop_in(stage: str, pipe) -> None:
    """Let the pipeline wait in the middle of a stage, once the latents of a finished sampling are in their file."""
    if stage == "sampling":
        step = pipe.dit.step
        pipe.dit.step = lambda *args: wait(stage) if args[-1] == 2 else step(*args)
    elif stage == "decode":
        decode = pipe.vae.decode

        def first_chunk(latents, **settings):
            yield next(decode(latents, **settings))
            time.sleep(0.5)
            wait(stage)

        pipe.vae.decode = first_chunk
    else:
        VideoWriter.finish = lambda _: (time.sleep(0.5), wait(stage))


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    torch.set_num_threads(1)  # threads do not survive a fork
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, progress=False)
    pipe.model_set = SMALL
    for stage in ("sampling", "decode", "encoding"):
        for how in ("SIGKILL", "SIGINT"):
            if os.fork() == 0:
                stop_in(stage, pipe)
                folder = Path(sys.argv[1]) / f"{stage}-{how}"
                try:
                    pipe("a cat", folder / "v.mp4", time_length=1, width=64, height=64, seed=3)
                except KeyboardInterrupt as error:
                    (folder / "notes").write_text("\n".join(getattr(error, "__notes__", [])))
                os._exit(0)
            os.wait()
