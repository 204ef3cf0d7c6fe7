"""Memory modes under hard limits, loading, and the planner's predictions against measured peaks.

    kandinsky random-weights full FOLDER --device cuda
    kandinsky convert --weights FOLDER --device cuda; kandinsky convert --weights FOLDER --device cuda --precision fast
    python benchmarks/memory.py FOLDER [--only NAME ...] [--device cpu]

One process a row. A row's limit is `torch.cuda.set_per_process_memory_fraction`: what the allocator reserves, so
fragments count, the CUDA context does not. Each row makes one video cold, one warm (another prompt: no cached
embedding) and one of each other size; latents are compared by hash with those of the unlimited resident row. GB are
10^9 bytes. The last line is JSON. `--device cpu` tries the script out with tiny weights.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

PROMPTS = ("Several giant wooly mammoths approach.", "A lighthouse in a storm at night.")
SIZES = ((12, 384, 672), (5, 512, 512), (1, 352, 736))
"""Seconds, height, width; the first is the one that is timed."""
TRY_OUT = ((1, 352, 736),)
MODES_T5 = {"dit": "resident", "vae": "resident", "text_embedder": "blocks"}


@dataclass(frozen=True)
class Row:
    """What one process does; `limit` in GB."""

    name: str
    memory: str | dict[str, str]
    precision: str
    limit: float | None


ROWS = (
    Row("resident, no limit", "resident", "exact", None),
    Row("resident, fast, no limit", "resident", "fast", None),
    Row("resident, limit 23", "resident", "exact", 23),
    Row("T5 in blocks, limit 23", MODES_T5, "exact", 23),
    Row("staged, limit 14", "staged", "exact", 14),
    Row("blocks, limit 8", "blocks", "exact", 8),
    Row("blocks, fast, limit 6", "blocks", "fast", 6),
)
LOADS = ("ours, .safetensors", "ours, .pt", "torch.load + from_pretrained")


@contextmanager
def host_peak() -> Iterator[dict[str, float]]:
    """GB of host memory at most: `all` as the kernel counts it (file pages too), `own` without those of files."""
    peak: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        while True:
            fields = status()
            own = fields.get("RssAnon", 0.0) + fields.get("RssShmem", 0.0)
            peak["own"] = max(peak.get("own", 0.0), own)
            peak["all"] = max(peak.get("all", 0.0), fields.get("VmRSS", 0.0))
            if done.wait(0.02):
                return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield peak
    finally:
        done.set()
        thread.join()


def status() -> dict[str, float]:
    """This process's memory, GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {line.split(":")[0]: int(line.split()[1]) * 1024 / 1e9 for line in lines if line.endswith(" kB")}


def load(folder: Path, device: str, row: Row):
    """The pipeline of a row, the seconds that took and the host memory."""
    from kandinsky import get_T2V_pipeline

    with host_peak() as host:
        start = time.perf_counter()
        pipe = get_T2V_pipeline(
            device, cache_dir=folder, precision=row.precision, memory=row.memory, local_files_only=True, progress=False
        )
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    return pipe, {"load_s": seconds, "load_host_gb": host}


def measure_row(folder: Path, device: str, row: Row) -> dict:
    """In a process of its own."""
    cuda = device != "cpu"
    if row.limit is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(row.limit * 1e9 / total, 0)
    pipe, report = load(folder, device, row)
    report["idle_gb"] = torch.cuda.memory_allocated() / 1e9 if cuda else 0.0
    latents = []
    sample = pipe.sample_latents

    def sampled(*arguments, **settings):
        latents.append(sample(*arguments, **settings))
        return latents[-1]

    pipe.sample_latents = sampled
    report["sizes"] = {}
    with tempfile.TemporaryDirectory() as target:
        for index, (seconds, height, width) in enumerate(SIZES if cuda else TRY_OUT):
            runs = []
            for prompt in PROMPTS if index == 0 else PROMPTS[:1]:
                if cuda:
                    torch.cuda.reset_peak_memory_stats()
                    torch.cuda.empty_cache()
                runs.append(pipe(prompt, Path(target) / "v.mp4", 1, seconds, width, height, seed=7))
                seconds_of = {stage: round(value, 3) for stage, value in runs[-1].timings.items()}
                peaks = {stage: round(value / 1e9, 3) for stage, value in runs[-1].peak_memory.items()}
                print(f"  {row.name}: {width}x{height} {seconds} s", seconds_of, peaks, flush=True)
            content = latents[-1].cpu().contiguous().numpy().tobytes()
            latents.clear()
            report["sizes"][f"{width}x{height} {seconds} s"] = {
                "seconds": runs[-1].timings,
                "peak_gb": {stage: peak / 1e9 for stage, peak in runs[-1].peak_memory.items()},
                "latents": hashlib.sha256(content).hexdigest()[:16],
            }
    report["reserved_gb"] = torch.cuda.max_memory_reserved() / 1e9 if cuda else 0.0
    report["host_gb"] = status().get("VmHWM", 0.0)
    return report


def measure_load(folder: Path, device: str, name: str) -> dict:
    """Packages are imported before, so that the time is that of the weights."""
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel

    if device != "cpu":
        torch.zeros(1, device=device)
    if name != LOADS[2]:
        if name == LOADS[1]:
            folder = without_copies(folder)
        _pipe, report = load(folder, device, Row(name, "resident", "exact", None))
        return report
    with host_peak() as host:
        start = time.perf_counter()
        dit = torch.load(folder / "kandinsky4_distil_512.pt", map_location=device, weights_only=True)
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16).to(device)
        vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae", torch_dtype=torch.bfloat16).to(device)
        if device != "cpu":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
    assert dit
    assert t5.device == vae.device
    return {"load_s": seconds, "load_host_gb": host}


def without_copies(folder: Path) -> Path:
    """A folder of links in which only the published DiT stands."""
    links = Path(tempfile.mkdtemp())
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (links / path.name).symlink_to(path.resolve())
    return links


def predictions(folder: Path, rows: dict[str, dict]) -> dict[str, float]:
    """Prints the planner's peaks beside the measured ones; returns the largest ratio's distance from 1 for each row."""
    from kandinsky.config import FLASH_512
    from kandinsky.devices import MODULES
    from kandinsky.hub import locate
    from kandinsky.model_needs import needs_from
    from kandinsky.planner import outcome
    from kandinsky.video_shape import VideoShape

    paths = locate(folder, model_set=FLASH_512, given={}, local_files_only=True, revision={})
    needs_of = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=FLASH_512.text_tokens)
    print(f"\n{'predicted / measured GB':28s} {'size':16s} {'text':>15s} {'sample':>15s} {'decode':>15s}")
    worst = {}
    for row in ROWS:
        modes = row.memory if isinstance(row.memory, dict) else dict.fromkeys(MODULES, row.memory)
        for seconds, height, width in SIZES:
            size = f"{width}x{height} {seconds} s"
            measured = rows.get(row.name, {}).get("sizes", {}).get(size)
            if measured is None:
                continue
            needs = needs_of(VideoShape.from_request(seconds, height, width), row.precision)
            found = outcome(needs, modes, memory_saving=False)
            pairs = {stage: (peak / 1e9, measured["peak_gb"][stage]) for stage, peak in found.peaks.items()}
            cells = " ".join(f"{f'{a:.2f} / {b:.2f}':>15s}" for a, b in pairs.values())
            print(f"{row.name:28s} {size:16s} {cells}")
            errors = [abs(a / b - 1) for a, b in pairs.values()]
            worst[row.name] = max(worst.get(row.name, 0.0), *errors)
    return worst


def in_own_process(folder: Path, device: str, task: dict, *, seconds: int) -> dict:
    """Run this script with one task; its last line is the report."""
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    command = [sys.executable, __file__, str(folder), "--device", device, "--task", json.dumps(task)]
    try:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {seconds} s"}
    lines = done.stdout.strip().splitlines()
    print("\n".join(lines[:-1]))
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"failed": f"exit code {done.returncode}"}


def run_task(folder: Path, device: str, task: dict) -> None:
    """In the own process."""
    if "load" in task:
        print(json.dumps(measure_load(folder, device, task["load"])))
    else:
        print(json.dumps(measure_row(folder, device, Row(**task))))


def row_line(row: Row, report: dict, rows: dict[str, dict]) -> str:
    """One line of the table."""
    if "failed" in report:
        return f"{row.name:28s} {report['failed']}"
    first, measured = next(iter(report["sizes"].items()))
    base = rows.get("resident, fast, no limit" if row.precision == "fast" else "resident, no limit", {})
    same = all(
        base.get("sizes", {}).get(size, {}).get("latents") == found["latents"]
        for size, found in report["sizes"].items()
    )
    timings, peaks = measured["seconds"], measured["peak_gb"]
    parts = " ".join(f"{stage} {timings[stage]:.2f}" for stage in ("text", "sample", "decode"))
    return (
        f"{row.name:28s} {first}: {timings['total']:.2f} s ({parts}); peak {max(peaks.values(), default=0):.2f} GB, "
        f"reserved {report['reserved_gb']:.2f}; latents equal: {same}; load {report['load_s']:.1f} s, "
        f"host {report['load_host_gb']['own']:.1f} GB own, {report['load_host_gb']['all']:.1f} with file pages"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="rows or loads by name")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run_task(arguments.folder, arguments.device, json.loads(arguments.task))
        return
    figures: dict = {"torch": torch.__version__, "rows": {}, "loads": {}}
    only = set(arguments.only)
    for name in LOADS:
        if not only or name in only:
            report = in_own_process(arguments.folder, arguments.device, {"load": name}, seconds=120)
            figures["loads"][name] = report
            print(f"load, {name:30s} {report}", flush=True)
    for row in ROWS if arguments.device != "cpu" else ROWS[:1]:
        if not only or row.name in only:
            report = in_own_process(arguments.folder, arguments.device, asdict(row), seconds=120)
            figures["rows"][row.name] = report
            print(row_line(row, report, figures["rows"]), flush=True)
    if arguments.device != "cpu":
        figures["prediction_error"] = predictions(arguments.folder, figures["rows"])
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
