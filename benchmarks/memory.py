"""Memory modes under hard limits, loading, and the planner's predictions against measured peaks.

    kandinsky random-weights full FOLDER --device cuda
    kandinsky convert --weights FOLDER --device cuda; kandinsky convert --weights FOLDER --device cuda --precision fast
    python benchmarks/memory.py FOLDER [--only NAME ...] [--sizes N] [--cold] [--json FILE]
    python benchmarks/memory.py --size tiny --device cpu      # to try the benchmark itself: weights of its own

One process a row. A row's limit is `torch.cuda.set_per_process_memory_fraction`: what the allocator reserves, so
fragments count, the CUDA context does not. Rows that read from the disk end if they have more than 6 GB of host memory
of their own. With `--cold` the page cache has nothing of FOLDER when a row begins (on Linux).

Each row makes one video cold, one warm (another prompt: no cached
embedding) and one of each other size; latents are compared by hash with those of the unlimited resident row of the same
precision, which is also as fast as a mode can be. GB are 10^9 bytes. The ways of loading are those of `loading.py`. The
last line is JSON; with `--json` the figures are in that file after each row, and rows that are in it already are not
run again.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from loading import load_line, loads_on, measure_load, weights_in
from memory_rows import ROWS, SIZES, Row, Size, base_of, measure_row, predictions, rows_on
from script import device_in, finish, machine, parser_of, write_json

MAX_SECONDS = 100
"""For one row."""


def in_own_process(folder: Path, device: str, task: Mapping[str, Any]) -> dict:
    """Run this script with one task; its last line is the report."""
    environment = {**os.environ, "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}
    command = [sys.executable, __file__, str(folder), "--device", device, "--task", json.dumps(task)]
    settings = {"env": environment, "stdout": subprocess.PIPE, "text": True, "timeout": MAX_SECONDS}
    try:
        done = subprocess.run(command, check=False, **settings)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {MAX_SECONDS} s"}
    lines = done.stdout.strip().splitlines()
    print("\n".join(lines[:-1]))
    return json.loads(lines[-1]) if done.returncode == 0 and lines else {"failed": f"exit code {done.returncode}"}


def run_task(folder: Path, device: torch.device, task: Mapping[str, Any]) -> dict:
    """In the own process."""
    if "load" in task:
        return measure_load(folder, device, task["load"])
    return measure_row(
        folder, device, Row(**task["row"]), [(seconds, width, height) for seconds, width, height in task["sizes"]]
    )


def latents_line(row: Row, report: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """Whether a row's latents are those of the row that it is compared with; nothing where there is none."""
    base = base_of(row)
    expected = rows.get(base, {}).get("sizes", {})
    compared = [size for size in report["sizes"] if size in expected]
    if base == row.name or not compared:
        return ""
    different = [size for size in compared if expected[size]["latents"] != report["sizes"][size]["latents"]]
    if different:
        return f"latents of {', '.join(different)} differ from those of {base!r}; "
    return f"latents of {', '.join(compared)} equal those of {base!r}; "


def row_line(row: Row, report: Mapping[str, Any], rows: Mapping[str, Any]) -> str:
    """One line of the table."""
    if "failed" in report:
        return f"{row.name:28s} {report['failed']}"
    first, measured = next(iter(report["sizes"].items()))
    timings, peaks = measured["seconds"], measured["peak_gb"]
    parts = " ".join(f"{stage} {timings[stage]:.2f}" for stage in ("text", "sample", "decode"))
    return (
        f"{row.name:28s} {first}: {timings['total']:.2f} s ({parts}); peak {max(peaks.values(), default=0):.2f} GB, "
        f"reserved {report['reserved_gb']:.2f}; {latents_line(row, report, rows)}load {report['load_s']:.1f} s, "
        f"host {report['host_gb']['own']:.1f} GB own, {report['host_gb']['all']:.1f} with file pages"
    )


def compare(predicted: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, float]:
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


def drop_cached(folder: Path) -> None:
    """Let the system forget what it has read of a folder's files."""
    os.sync()  # what is not written yet cannot be forgotten
    for file in (path for path in folder.rglob("*") if path.is_file()):
        with file.open("rb") as opened:
            os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_all(
    folder: Path, device: torch.device, sizes: Sequence[Size], *, given: argparse.Namespace, figures: dict
) -> None:
    """Every row and load that is wanted and not in `figures` yet, each in a process of its own; fills `figures`."""
    rows = {row.name: row for row in rows_on(device)}
    tasks = [("loads", name, {"load": name}) for name in loads_on(device)]
    tasks += [("rows", name, {"row": asdict(row), "sizes": sizes}) for name, row in rows.items()]
    for kind, name, task in tasks:
        if (given.only and name not in given.only) or "failed" not in figures[kind].get(name, {"failed": ""}):
            continue
        if given.cold:
            drop_cached(folder)
        report = in_own_process(folder, device.type, task)
        figures[kind][name] = report
        print(row_line(rows[name], report, figures["rows"]) if kind == "rows" else load_line(name, report), flush=True)
        write_json(figures, given.json)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of weights")
    parser.add_argument("--only", nargs="*", default=[], metavar="NAME", help="rows or loads by name")
    parser.add_argument("--sizes", type=int, help="how many sizes of video each row makes (default: all)")
    parser.add_argument("--cold", action="store_true", help="empty the page cache of the weights before each row")
    parser.add_argument("--task", help="for the processes that this starts")
    given = parser.parse_args(arguments)
    device = device_in(given)
    if given.task:
        print(json.dumps(run_task(given.folder, device, json.loads(given.task))))
        return
    known = [*loads_on(device), *(row.name for row in rows_on(device))]
    for name in given.only:
        if name not in known:
            parser.error(f"--only {name!r}: on this device there are {', '.join(map(repr, known))}")
    figures: dict[str, Any] = {**machine(device), "size": given.size, "rows": {}, "loads": {}}
    if given.json is not None and given.json.is_file():
        figures = json.loads(given.json.read_text(encoding="utf-8"))
    sizes = SIZES[given.size][: given.sizes]
    with weights_in(given, parser) as folder:
        figures["predicted_gb"] = predictions(folder, ROWS, sizes)
        run_all(folder, device, sizes, given=given, figures=figures)
    if device.type == "cuda":
        figures["prediction_error"] = compare(figures["predicted_gb"], figures["rows"])
    finish(figures, given)


if __name__ == "__main__":
    main()
