"""A batch of tiny videos in a process of its own: `batch_process.py PROMPTS FOLDER`."""

import sys

from conftest import SMALL, TINY

from kandinsky.batch import run_batch
from kandinsky.factory import get_T2V_pipeline
from kandinsky.prompts import read_prompts

if __name__ == "__main__":
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, local_files_only=True, parallelism="none", progress=False)
    pipe.model_set = SMALL
    settings = {"seed": 1, "time_length": 1, "width": 64, "height": 64}
    print(run_batch(pipe, read_prompts(sys.argv[1], settings, model_set=SMALL), sys.argv[2]))
