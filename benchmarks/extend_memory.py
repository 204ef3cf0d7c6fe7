"""How much memory an extension needs, by its length: it should not grow.

    python benchmarks/extend_memory.py [--weights FOLDER] [--seconds 30 60 180] [--device cuda]
    python benchmarks/extend_memory.py --size tiny --device cpu      # to try the benchmark itself

A source of the same length as what comes to it is drawn and gone on with, in a process of its own for each length: the
process's peak of host memory, and on a GPU the highest peak of its stages. Without FOLDER the weights are those of
`weights/tiny`. There is no limit in numbers: the longest may not need more than the shortest. The last line is JSON.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from script import device_in, finish, machine, parser_of

import kandinsky
from kandinsky.output.video import VideoWriter

TINY = Path(__file__).parents[1] / "weights" / "tiny"
SECONDS = {"full": (30, 60, 180), "tiny": (1, 2)}
SIDE = 128
RATE = 8


def write_source(path: Path, seconds: int) -> None:
    """A clip of moving stripes, written as it is drawn."""
    with VideoWriter(path, width=SIDE, height=SIDE, fps=RATE) as writer:
        for frame in range(seconds * RATE + 1):
            stripes = ((np.arange(SIDE)[None] + np.arange(SIDE)[:, None] + 4 * frame) % 256).astype(np.uint8)
            writer.write(np.repeat(stripes[None, ..., None], 3, axis=-1))
        writer.finish()


def extend_here(weights: Path, source: Path, seconds: int, device: str) -> dict[str, Any]:
    """An extension in this process, and what memory it took at most."""
    from kandinsky.factory import get_T2V_pipeline

    pipe = get_T2V_pipeline(device, cache_dir=weights, local_files_only=True, progress=False)
    result = pipe.extend(source, "A red circle.", source.with_name("v.mp4"), seconds=seconds, seed=1)
    assert result is not None
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = max(result.peak_memory.values(), default=0)
    return {"seconds": seconds, "frames": result.num_frames, "host_gib": host / 2**30, "gpu_gib": gpu / 2**30}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path, default=TINY)
    parser.add_argument("--seconds", type=int, nargs="+")
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    lengths = given.seconds or SECONDS[given.size]
    if given.source is not None:
        print(json.dumps(extend_here(given.weights, given.source, lengths[0], given.device)))
        return
    device, rows = device_in(given), []
    for seconds in lengths:
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "source.mp4"
            write_source(source, seconds)
            command = [sys.executable, __file__, "--device", given.device, "--weights", str(given.weights)]
            command += ["--source", str(source), "--seconds", str(seconds)]
            environment = {**os.environ, "PYTHONPATH": str(Path(kandinsky.__file__).parents[1])}
            said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment).stdout
        rows.append(json.loads(said.splitlines()[-1]))
        row = rows[-1]
        print(f"{seconds:4} s: {row['frames']} frames, host {row['host_gib']:.3f} GiB, GPU {row['gpu_gib']:.3f} GiB")
    finish({**machine(device), "size": given.size, "rows": rows}, given)


if __name__ == "__main__":
    main()
