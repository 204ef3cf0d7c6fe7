"""Videos an hour: one batch against as many calls of their own.

    python benchmarks/batch.py [--count 20] [--seconds 12] [--process]
    python benchmarks/batch.py --tiny --count 4 --seconds 1      # 128x128 on a CPU, to try the benchmark itself

Full-size random weights on one GPU (they cost the same as real ones), 672x384. `single`: one call after the other on
the same loaded pipeline; `batch`: `run_batch` over the same prompts and seeds. Two calls run before, so that nothing is
compiled while they are timed. `--process` adds what a user pays who starts the command for each video: the
time to start Python, load the weights from files and warm up, measured once with files written for it (needs 21 GB of
disk); loading comes from the page cache then, which flatters it. The limit: the sum of the text, sampling and decoding
stages, which are all on the GPU, without any time between them. The last line is JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from kandinsky.batch.prompts import Item, make_items
from kandinsky.batch.run import run_batch
from kandinsky.checkpoint.random_weights import make_random_weights
from kandinsky.config import ModelSet
from kandinsky.factory import get_T2V_pipeline
from kandinsky.pipeline import GenerationResult, Kandinsky4T2VPipeline

SUBJECTS = ("a woolly mammoth", "a lighthouse", "an old train", "a red kite", "a steam engine")
PLACES = ("in deep snow", "in a storm", "at sunset", "under a clear sky")
TINY = Path(__file__).parents[1] / "weights" / "tiny"


def items_of(model_set: ModelSet, count: int, seconds: int) -> tuple[Item, ...]:
    width, height = max(model_set.sizes, key=lambda size: (size == (672, 384), size))
    prompts = [f"{SUBJECTS[i % 5]} {PLACES[i // 5 % 4]}, take {i}" for i in range(count)]
    return make_items(
        prompts, {"seed": 1, "time_length": seconds, "width": width, "height": height}, model_set=model_set
    )


def single_calls(pipe: Kandinsky4T2VPipeline, items: tuple[Item, ...], folder: Path) -> list[GenerationResult]:
    results = []
    for item in items:
        shape, job = item.shape, item.job
        result = pipe(job.prompt, folder / str(job.path), 1, shape.seconds, shape.width, shape.height, job.seed)
        assert isinstance(result, GenerationResult)
        results.append(result)
    return results


def one_process(size: str, seconds: int, folder: Path) -> float:
    """Seconds from starting the command to its end, the second time."""
    weights = TINY if size == "tiny" else make_random_weights(folder / "weights", size, device="cuda")
    device = "cpu" if size == "tiny" else "cuda"
    command = [sys.executable, "-m", "kandinsky", "generate", "--weights", str(weights), "--device", device, "--quiet"]
    command += ["--time-length", str(seconds), "--save-path", str(folder / "process.mp4")]
    for _ in range(2):
        start = time.perf_counter()
        subprocess.run(command, check=True)
    return time.perf_counter() - start


def compare(pipe: Kandinsky4T2VPipeline, items: tuple[Item, ...], folder: Path) -> dict[str, float]:
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
    names = [str(item.job.path) for item in items]
    equal = all((folder / "single" / n).read_bytes() == (folder / "batch" / n).read_bytes() for n in names)
    assert equal, "a video of the batch differs from the one made alone"
    busy = sum(result.timings[stage] for result in results for stage in ("text", "sample", "decode"))
    return {"single_s": single, "batch_s": batch.seconds, "limit_s": busy}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seconds", type=int, default=12)
    parser.add_argument("--tiny", action="store_true", help="the embedded tiny model on the CPU, up to 3 seconds")
    parser.add_argument("--process", action="store_true", help="also a process for each video")
    given = parser.parse_args()
    size = "tiny" if given.tiny else "full"
    if given.tiny:
        pipe = get_T2V_pipeline("cpu", cache_dir=TINY, local_files_only=True, progress=False)
    else:
        from stages import build

        pipe = build(0)
    device = "cpu" if given.tiny else torch.cuda.get_device_name()
    print(f"{device}, torch {torch.__version__}; {given.count} videos of {given.seconds} s")
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(pipe, items_of(pipe.model_set, given.count, given.seconds), Path(folder))
        del pipe
        if given.process:
            if not given.tiny:
                torch.cuda.empty_cache()
            figures["process_s"] = given.count * one_process(size, given.seconds, Path(folder))
    for name, seconds in figures.items():
        print(f"{name:>10} {seconds:9.2f} s, {3600 * given.count / seconds:8.1f} videos an hour")
    print(json.dumps({"device": device, "count": given.count, "seconds": given.seconds, **figures}))


if __name__ == "__main__":
    main()
