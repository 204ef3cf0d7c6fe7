"""Videos an hour: one batch against as many calls of their own.

    python benchmarks/batch.py [--count 20] [--seconds 12] [--process]
    python benchmarks/batch.py --size tiny --device cpu      # to try the benchmark itself

Full-size random weights on one GPU (they cost the same as real ones), 672x384. `single`: one call after the other on
the same loaded pipeline; `batch`: `run_batch` over the same prompts and seeds. Two calls run before, so that nothing is
compiled while they are timed. `--process` adds what a user pays who starts the command for each video: the
time to start Python, load the weights from files and warm up, measured once with files written for it (needs 21 GB of
disk); loading comes from the page cache then, which flatters it. The limit: the sum of the text, sampling and decoding
stages, which are all on the device, without any time between them. The last line is JSON.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from random_parts import WORKLOADS, Workload, random_parts
from script import device_in, finish, machine, parser_of

from kandinsky.batch.prompts import Item, make_items
from kandinsky.batch.run import run_batch
from kandinsky.checkpoint.random_weights import make_random_weights
from kandinsky.output.result import Result
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.request import Request

SUBJECTS = ("a woolly mammoth", "a lighthouse", "an old train", "a red kite", "a steam engine")
PLACES = ("in deep snow", "in a storm", "at sunset", "under a clear sky")
TRAINED = Path(__file__).parents[1] / "weights" / "tiny"
"""Whose own sizes a CPU makes at once: what `--process` loads at tiny size."""
COUNTS = {"full": 20, "tiny": 2}


def items_of(workload: Workload, count: int, seconds: int) -> tuple[Item, ...]:
    prompts = [f"{SUBJECTS[i % 5]} {PLACES[i // 5 % 4]}, take {i}" for i in range(count)]
    size = {"width": workload.width, "height": workload.height}
    return make_items(prompts, {"seed": 1, "time_length": seconds, **size}, model_set=workload.model_set)


def single_calls(pipe: Kandinsky4T2VPipeline, items: Sequence[Item], folder: Path) -> list[Result]:
    results = []
    for item in items:
        job = replace(item.job, path=folder / item.name)
        results += pipe.run(Request((job,), item.shape, item.output))
    return results


def one_process(size: str, device: torch.device, seconds: int, folder: Path) -> float:
    """Seconds from starting the command to its end, the second time."""
    weights = TRAINED if size == "tiny" else make_random_weights(folder / "weights", size, device=device)
    command = [sys.executable, "-m", "kandinsky", "generate", "--weights", str(weights), "--device", device.type]
    command += ["--quiet", "--time-length", str(seconds), "--save-path", str(folder / "process.mp4")]
    subprocess.run(command, check=True)
    start = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - start


def compare(pipe: Kandinsky4T2VPipeline, items: Sequence[Item], folder: Path) -> dict[str, float]:
    """Seconds for all items either way, and of their stages; the files must be equal."""
    for name in ("single", "batch", "warm"):
        (folder / name).mkdir()
    single_calls(pipe, items[:2], folder / "warm")
    start = time.perf_counter()
    results = single_calls(pipe, items, folder / "single")
    single = time.perf_counter() - start
    batch = run_batch(pipe, items, folder / "batch")
    assert batch is not None
    assert not batch.failed
    equal = all(
        (folder / "single" / item.name).read_bytes() == (folder / "batch" / item.name).read_bytes() for item in items
    )
    assert equal, "a video of the batch differs from the one made alone"
    busy = sum(result.timings[stage] for result in results for stage in ("text", "sample", "decode"))
    return {"single_s": single, "batch_s": batch.seconds, "limit_s": busy}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--count", type=int, help="videos (default: 20, at tiny size 2)")
    parser.add_argument("--seconds", type=int, help="of each video (default: 12, at tiny size 1)")
    parser.add_argument("--process", action="store_true", help="also a process for each video")
    given = parser.parse_args(arguments)
    device, workload = device_in(given), WORKLOADS[given.size]
    count, seconds = given.count or COUNTS[given.size], given.seconds or workload.seconds
    pipe = Kandinsky4T2VPipeline(random_parts(given.size, device))
    about = {**machine(device), "size": given.size, "count": count, "seconds": seconds}
    print(f"{about['device']}, torch {about['torch']}; {count} videos of {seconds} s")
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(pipe, items_of(workload, count, seconds), Path(folder))
        del pipe
        if given.process:
            if device.type == "cuda":
                torch.cuda.empty_cache()
            figures["process_s"] = count * one_process(given.size, device, seconds, Path(folder))
    for name, taken in figures.items():
        print(f"{name:>10} {taken:9.2f} s, {3600 * count / taken:8.1f} videos an hour")
    finish({**about, **figures}, given)


if __name__ == "__main__":
    main()
