"""Memory modes under hard limits, loading, and the planner's predictions against measured peaks.

    kandinsky random-weights full FOLDER --device cuda
    kandinsky convert --weights FOLDER --device cuda; kandinsky convert --weights FOLDER --device cuda --precision fast
    python benchmarks/memory.py FOLDER [--only NAME ...] [--sizes N] [--json FILE] [--device cpu]

One process a row. A row's limit is `torch.cuda.set_per_process_memory_fraction`: what the allocator reserves, so
fragments count, the CUDA context does not. Each row makes one video cold, one warm (another prompt: no cached
embedding) and one of each other size; latents are compared by hash with those of the unlimited resident row. GB are
10^9 bytes. The last line is JSON; with `--json` the figures are in that file after each row, and rows that are in it
already are not run again. `--device cpu` tries the script out with tiny weights.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from loading import load, load_published, read_alone, status, without_copies

PROMPTS = ("Several giant wooly mammoths approach.", "A lighthouse in a storm at night.")
SIZES = ((12, 672, 384), (5, 512, 512), (1, 352, 736))
"""Seconds, height, width; the first is the one that is timed."""
TRY_OUT = ((1, 352, 736),)
MODES_T5 = {"dit": "resident", "vae": "resident", "text_embedder": "blocks"}


@dataclass(frozen=True)
class Row:
    """What one process does; `limit` in GB, `saving` is `vae_memory_saving`."""

    name: str
    memory: str | dict[str, str]
    precision: str
    limit: float | None
    saving: bool = False


ROWS = (
    Row("resident, no limit", "resident", "exact", None),
    Row("resident, fast, no limit", "resident", "fast", None),
    Row("resident, saving, limit 23", "resident", "exact", 23, saving=True),
    Row("T5 in blocks, limit 23", MODES_T5, "exact", 23),
    Row("staged, limit 14", "staged", "exact", 14),
    Row("blocks, limit 8", "blocks", "exact", 8),
    Row("blocks, fast, limit 6", "blocks", "fast", 6),
)
LOADS = (
    "reading alone",
    "ours, .safetensors",
    "ours, auto",
    "ours, .pt",
    "ours, fast",
    "torch.load + from_pretrained",
)


def measure_row(folder: Path, device: str, row: Row, sizes: int) -> dict:
    """In a process of its own."""
    cuda = device != "cpu"
    if row.limit is not None:
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(row.limit * 1e9 / total, 0)
    pipe, report = load(folder, device, precision=row.precision, memory=row.memory, vae_memory_saving=row.saving)
    report["idle_gb"] = torch.cuda.memory_allocated() / 1e9 if cuda else 0.0
    latents = []
    sample = pipe.sample_latents

    def sampled(*arguments, **settings):
        latents.append(sample(*arguments, **settings))
        return latents[-1]

    pipe.sample_latents = sampled
    report["sizes"] = {}
    with tempfile.TemporaryDirectory() as target:
        for index, (seconds, height, width) in enumerate(SIZES[:sizes] if cuda else TRY_OUT):
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
    report["host_high_water_gb"] = status().get("VmHWM", 0.0)
    return report


def measure_load(folder: Path, device: str, name: str) -> dict:
    """In a process of its own."""
    if name == "reading alone":
        return read_alone(folder, device)
    if name == "torch.load + from_pretrained":
        return load_published(folder, device)
    if name == "ours, .pt":
        folder = without_copies(folder)
    precision = "fast" if name == "ours, fast" else "exact"
    return load(folder, device, precision=precision, memory="auto" if name == "ours, auto" else "resident")[1]


def predictions(folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """The planner's peaks in GB for each row and size."""
    from kandinsky.checkpoint.locate import locate
    from kandinsky.config import FLASH_512, MODULES
    from kandinsky.memory.needs import needs_from
    from kandinsky.memory.planner import outcome
    from kandinsky.video_shape import VideoShape

    paths = locate(folder, model_set=FLASH_512, given={}, local_files_only=True, revision={})
    needs_of = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=FLASH_512.text_tokens)
    predicted: dict[str, dict[str, dict[str, float]]] = {}
    for row in ROWS:
        modes = row.memory if isinstance(row.memory, dict) else dict.fromkeys(MODULES, row.memory)
        for seconds, height, width in SIZES:
            needs = needs_of(VideoShape.from_request(seconds, width, height), row.precision)
            peaks = outcome(needs, modes, memory_saving=row.saving).peaks
            size = {stage: peak / 1e9 for stage, peak in peaks.items()}
            predicted.setdefault(row.name, {})[f"{width}x{height} {seconds} s"] = size
    return predicted


def compare(predicted: dict, rows: dict[str, dict]) -> dict[str, float]:
    """Prints predicted beside measured peaks; returns the largest ratio's distance from 1 for each row."""
    print(f"\n{'predicted / measured GB':28s} {'size':16s} {'text':>15s} {'sample':>15s} {'decode':>15s}")
    worst: dict[str, float] = {}
    for name, report in rows.items():
        for index, (size, measured) in enumerate(report.get("sizes", {}).items()):
            pairs = {stage: (predicted[name][size][stage], peak) for stage, peak in measured["peak_gb"].items()}
            if index > 0:  # its prompt's embedding is cached: T5 does not run
                del pairs["text"]
            cells = [f"{f'{a:.2f} / {b:.2f}':>15s}" for a, b in pairs.values()]
            print(f"{name:28s} {size:16s} {' ' * 16 * (3 - len(cells))}{' '.join(cells)}")
            worst[name] = max(worst.get(name, 0.0), *(abs(a / b - 1) for a, b in pairs.values()))
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
        print(json.dumps(measure_row(folder, device, Row(**task["row"]), task["sizes"])))


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
        f"host {report['host_gb']['own']:.1f} GB own, {report['host_gb']['all']:.1f} with file pages"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=[], help="rows or loads by name")
    parser.add_argument("--sizes", type=int, default=len(SIZES), help="how many sizes each row makes")
    parser.add_argument("--json", type=Path, help="file of figures")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        run_task(arguments.folder, arguments.device, json.loads(arguments.task))
        return
    figures: dict = {"torch": torch.__version__, "rows": {}, "loads": {}}
    if arguments.json is not None and arguments.json.is_file():
        figures = json.loads(arguments.json.read_text())
    if arguments.device != "cpu":
        figures["predicted_gb"] = predictions(arguments.folder)
    rows = ROWS if arguments.device != "cpu" else ROWS[:1]
    tasks = [("loads", name, {"load": name}) for name in LOADS]
    tasks += [("rows", row.name, {"row": asdict(row), "sizes": arguments.sizes}) for row in rows]
    for kind, name, task in tasks:
        if (arguments.only and name not in arguments.only) or "failed" not in figures[kind].get(name, {"failed": ""}):
            continue
        report = in_own_process(arguments.folder, arguments.device, task, seconds=100)
        figures[kind][name] = report
        row = Row(**task["row"]) if kind == "rows" else None
        print(row_line(row, report, figures["rows"]) if row else load_line(name, report), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(figures, indent=1))
    if arguments.device != "cpu":
        figures["prediction_error"] = compare(figures["predicted_gb"], figures["rows"])
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures))


def load_line(name: str, report: dict) -> str:
    """One line of the loading times."""
    if "load_s" not in report:
        return f"load, {name:30s} {report}"
    own, everything = report["host_gb"]["own"], report["host_gb"]["all"]
    seconds = f"{report['load_s']:.2f} s, imports before {report['import_s']:.1f} s"
    return f"load, {name:30s} {seconds}; host {own:.1f} GB own, {everything:.1f} with file pages"


if __name__ == "__main__":
    main()
