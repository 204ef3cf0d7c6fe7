"""From a command to its file: a new process for each run of `kandinsky generate`, and where its seconds go.

    python benchmarks/start.py FOLDER [--runs 3] [--requests 1] [--gpus 1] [--precision fast]
    python benchmarks/start.py --size tiny --device cpu      # to try the benchmark itself: the repository's tiny model

FOLDER has the weights. The seconds of a run are those from before the process is started until it is gone. A row of the
table is the first call of one function (see `watched.py`): when it began, and how long it took; rows overlap, and some
stand within others. Of several GPUs each process has a column. The first run fills caches (files, compiled kernels, the
tokenizer) and is told apart; figures are medians of the others. The limit is a request in a process that is warm: with
`--requests 2` and more its seconds are those of the last one. The last line is JSON, with every span of every run.
Where Python keeps no bytecode (PYTHONDONTWRITEBYTECODE, which some images set) it compiles thousands of files a time.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from script import device_in, finish, free_port, machine, parser_of

from kandinsky.config import PRECISIONS

HERE = Path(__file__).parent
TINY = HERE.parent / "weights" / "tiny"
PROMPT = {"full": "A lighthouse in a storm.", "tiny": "a large red circle in the middle moves right"}
CHILD = f"import sys; sys.path.insert(0, {str(HERE)!r}); from watched import command; command()"


def run(folder: Path, given: argparse.Namespace, place: Path) -> dict[str, Any]:
    """One start of the command, in as many processes as there are to be GPUs.

    Raises:
        SystemExit: it failed.
    """
    prompts = place / "prompts.txt"
    prompts.write_text(f"{PROMPT[given.size]}\n" * given.requests, encoding="utf-8")
    made = place / "made"
    arguments = ["generate", "--weights", str(folder), "--device", given.device, "--quiet"]
    arguments += ["--precision", given.precision]
    if given.requests > 1:
        arguments += ["--prompts", str(prompts), "--save-path", str(made)]
    else:
        arguments += ["--text", PROMPT[given.size], "--save-path", str(made / "0001.mp4")]
    arguments += ["--time-length", "1"] if given.size == "tiny" else []
    made.mkdir()
    start = time.monotonic()
    processes = [
        subprocess.Popen([sys.executable, "-c", CHILD, str(place / "spans"), *arguments, *more], env=environment)
        for more, environment in _ranks(given)
    ]
    failed = [process.wait() for process in processes]
    seconds = time.monotonic() - start
    if any(failed) or not (made / "0001.mp4").is_file():
        raise SystemExit(f"kandinsky {' '.join(arguments)} ended with {failed}")
    ranks = [json.loads((place / f"spans.{rank}").read_text(encoding="utf-8")) for rank in range(given.gpus)]
    return {"seconds": seconds, "ranks": [_from(start, rank, start + seconds) for rank in ranks]}


def _ranks(given: argparse.Namespace) -> list[tuple[list[str], dict[str, str]]]:
    """Arguments and environment of each process."""
    if given.gpus == 1:
        return [([], dict(os.environ))]
    shared = {"WORLD_SIZE": str(given.gpus), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared["LOCAL_WORLD_SIZE"] = shared["WORLD_SIZE"]
    ranks = [{**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(given.gpus)]
    return [(["--parallelism", given.parallelism], rank) for rank in ranks]


def _from(start: float, rank: Mapping[str, Any], end: float) -> dict[str, Any]:
    """A process's spans in seconds since the start of the command, in the order in which they began."""
    spans = sorted([name, thread, began - start, ended - start] for name, thread, began, ended in rank["spans"])
    spans.sort(key=lambda entry: entry[2])
    whole = [["Python itself", "MainThread", 0.0, rank["began"] - start]]
    return {"spans": [*whole, *spans, ["end of the process", "MainThread", rank["ended"] - start, end - start]]}


def firsts(rank: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """Of each name: when its first span began, and how long it took."""
    found: dict[str, tuple[float, float]] = {}
    for name, _, began, ended in rank["spans"]:
        found.setdefault(name, (began, ended - began))
    return found


def last_request(rank: Mapping[str, Any]) -> float:
    """Seconds of a process's last request, from its prompt to its finished file."""
    begins = [began for name, _, began, _ in rank["spans"] if name == "request"]
    ends = [ended for name, _, _, ended in rank["spans"] if name == "request: mp4 finished"]
    return max(ends) - max(begins)


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Medians over runs, as Markdown: for each process when a stage began and what it took."""
    ranks = [[firsts(run["ranks"][rank]) for run in runs] for rank in range(len(runs[0]["ranks"]))]
    titles = [f"process {rank}: began, s | seconds" for rank in range(len(ranks))]
    lines = [f"| stage | {' | '.join(titles)} |", "|---" * (1 + 2 * len(ranks)) + "|"]
    names = dict.fromkeys(name for rank in ranks for name in rank[0])
    for name in names:
        cells = []
        for rank in ranks:
            found = [run[name] for run in rank if name in run]
            cells += [f"{statistics.median(values):.3f}" for values in zip(*found, strict=True)] or ["", ""]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of weights; default at tiny size: ours")
    parser.add_argument("--runs", type=int, default=3, help="beside the first one (default: 3)")
    parser.add_argument("--requests", type=int, default=1, help="of one process, one after the other (default: 1)")
    parser.add_argument("--gpus", type=int, default=1, help="processes that work together (default: 1)")
    parser.add_argument("--precision", default="exact", choices=PRECISIONS, help="default: %(default)s")
    parser.add_argument("--parallelism", default="sequence", help="of several GPUs (default: sequence)")
    given = parser.parse_args(arguments)
    device = device_in(given)
    folder = given.folder or (TINY if given.size == "tiny" else parser.error("FOLDER: needed but with --size tiny"))
    runs = []
    for number in range(1 + given.runs):
        with tempfile.TemporaryDirectory() as name:
            runs.append(run(folder, given, Path(name)))
        print(f"run {number}: {runs[-1]['seconds']:.2f} s", flush=True)
    warm = runs[1:] or runs
    seconds = statistics.median(run["seconds"] for run in warm)
    limit = statistics.median(last_request(run["ranks"][0]) for run in warm)
    print(table(warm))
    first = runs[0]["seconds"]
    print(f"from the command to its end: {seconds:.2f} s, the first time {first:.2f} s; last request {limit:.2f} s")
    about = {**machine(device), "size": given.size, "precision": given.precision}
    finish({**about, "seconds": seconds, "limit_s": limit, "runs": runs}, given)


if __name__ == "__main__":
    main()
