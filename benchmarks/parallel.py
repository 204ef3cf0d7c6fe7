"""Several GPUs against one: DiT step, VAE decode, whole request and memory, for tensor and sequence parallelism.

    python benchmarks/parallel.py [--gpus 1 2 4 8] [--json docs/parallel.json]
    python benchmarks/parallel.py --size tiny --device cpu      # to try the benchmark itself: 1 and 2 processes

Random weights of the published sizes, the same on every GPU, are made on the spot. For each number of GPUs (by default
1, 2, 4, 8 as far as there are any) one group of processes measures both modes in exact and in fast precision, and
compares its latents with those of one GPU, if that was measured too. "Exposed" is what the messages cost: a step
against the same step with all messages left out. The limit is as many times the speed of one GPU as there are GPUs.
The last line is JSON; `parallel_plot.py` draws it.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from parallel_rank import LOG, work
from random_parts import WORKLOADS
from script import device_in, finish, machine, parser_of
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

GPUS = (1, 2, 4, 8)


def launch(gpus: int, folder: Path, arguments: Sequence[str]) -> None:
    """One group of processes."""
    config = LaunchConfig(1, 1, gpus, run_id=f"gpus{gpus}", rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    elastic_launch(config, sys.executable)(__file__, *arguments, "--work", str(folder))


def speed(row: Mapping[str, Any], one: Mapping[str, Any] | None, key: str) -> str:
    """A time, and how many times as fast that is as on one GPU."""
    times = "" if one is None else f" ({one[key] / row[key]:.2f}x)"
    return f"{row[key] * 1e3:,.0f} ms{times}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Figures as Markdown, with the speed-up over one GPU at the same precision."""
    lines = ["| GPUs | mode | precision | step | exposed | VAE | request | latents differ | peak GiB per rank |"]
    lines.append("|" + "---|" * 9)
    alone = {row["precision"]: row for row in rows if row["gpus"] == 1}
    for row in rows:
        one = alone.get(row["precision"])
        exposed = f"{1 - row['step_silent'] / row['step']:.1%}" if "step_silent" in row else ""
        differ = "" if row["difference"] is None else f"{row['difference']:.4f}"
        peaks = ", ".join(map(str, row.get("peak_gib", [])))
        lines.append(
            f"| {row['gpus']} | {row['mode']} | {row['precision']} | {speed(row, one, 'step')} | {exposed} "
            f"| {speed(row, one, 'decode')} | {speed(row, one, 'request')} | {differ} | {peaks} |"
        )
    for precision, row in alone.items():
        if row["attentions"]:
            lines.append(f"\nOne GPU, {precision}, latents of two attention backends differ by: {row['attentions']}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = parser_of(__doc__)
    parser.add_argument("--gpus", type=int, nargs="*", help="numbers of GPUs (default: 1, 2, 4, 8), or of processes")
    parser.add_argument("--modes", nargs="*", default=["tensor", "sequence"], help="default: both")
    parser.add_argument("--precisions", nargs="*", default=["exact", "fast"], help="default: both; on a CPU exact")
    parser.add_argument("--seconds", type=int, help="of video (default: 12, at tiny size 1)")
    parser.add_argument("--work", type=Path, help="for the processes that this starts")
    given = parser.parse_args(arguments)
    device, seconds = device_in(given), given.seconds or WORKLOADS[given.size].seconds
    precisions = given.precisions if device.type == "cuda" else ["exact"]
    if given.work:
        work(given.work, device, size=given.size, modes=given.modes, precisions=precisions, seconds=seconds)
        return
    there = torch.cuda.device_count() if device.type == "cuda" else 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for gpus in given.gpus or [count for count in GPUS if count <= there]:
            launch(gpus, folder, arguments)
        rows = [json.loads(line) for line in (folder / LOG).read_text(encoding="utf-8").splitlines()]
    print(table(rows))
    finish({**machine(device), "size": given.size, "seconds": seconds, "rows": rows}, given)


if __name__ == "__main__":
    main()
