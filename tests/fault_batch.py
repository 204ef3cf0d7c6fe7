"""A batch that waits to be killed, for tests/batch/test_run.py."""

import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from fakes import WatchedDit, changed
from helpers import SMALL, wait_for_a_signal

from kandinsky import get_T2V_pipeline
from kandinsky.batch import read_prompts, run_batch

SETTINGS = {"seed": 1, "time_length": 0, "width": 64, "height": 64}
LAST = 3
"""The item that is never made, counted from 1."""


def make_batch(prompts: Path, folder: Path, weights: Path, connection: Connection) -> None:
    """Make the items before `LAST`, then say so and wait in the middle of its sampling."""
    items = read_prompts(prompts, SETTINGS, model_set=SMALL)
    steps = 0

    def before(_index: int) -> None:
        nonlocal steps
        steps += 1
        if steps == 4 * (LAST - 1) + 2:
            while (folder / "report.jsonl").read_text().count('"done"') < LAST - 1:
                time.sleep(0.01)
            connection.send("waiting")
            wait_for_a_signal()

    torch.set_num_threads(1)
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    run_batch(changed(pipe, dit=WatchedDit(pipe.dit, before)), items, folder)
