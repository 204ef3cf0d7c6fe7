"""What an option costs in pictures: the embedded tiny model under each, against itself as it is by default.

    python benchmarks/quality.py [--prompts 60] [--json FILE]

Captions that were held out from training; for each row the share of clips whose attributes are what the prompt says, by
a judge that is no network, and the PSNR of its frames against the first row's, the same prompts and seeds. A row is a
line in `ROWS`: arguments of the factory, and a number of processes. Rows that this machine cannot run are left out.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from kandinsky.factory import get_T2V_pipeline
from kandinsky.training.world.evaluate import accuracy, some_scenes
from kandinsky.training.world.grammar import caption

WEIGHTS = Path(__file__).parents[1] / "weights" / "tiny"


@dataclass(frozen=True)
class Row:
    """An option: what the factory is called with, by how many processes, and whether it needs a GPU."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1
    gpu: bool = False

    def runs_here(self) -> bool:
        count = torch.cuda.device_count()
        return not self.gpu if count == 0 else self.processes <= count


ROWS = (
    Row("exact"),
    Row("kernels torch", {"kernels": "torch", "attention": "torch"}),
    Row("attention torch", {"attention": "torch"}, gpu=True),
    Row("attention cudnn", {"attention": "cudnn"}, gpu=True),
    Row("attention bounded", {"attention": "bounded"}, gpu=True),
    Row("float32", {"dtype": torch.float32, "kernels": "torch"}),
    Row("fast", {"precision": "fast"}, gpu=True),
    Row("tensor, 2 processes", {"parallelism": "tensor"}, processes=2),
    Row("sequence, 2 processes", {"parallelism": "sequence"}, processes=2),
)
"""The first one is what the others are compared with."""


def make(row: Row, file: Path, weights: Path, prompts: int) -> None:
    """Write a row's clips, uint8 `[frames, height, width, 3]` each."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pipe = get_T2V_pipeline(device, cache_dir=weights, local_files_only=True, progress=False, **row.options)
    texts = [caption(scene) for scene in some_scenes(prompts)]
    clips = pipe(texts, time_length=2, seed=0, output_type="pt")
    if clips is not None:
        save_file({f"{number:04}": clip for number, clip in enumerate(cast("list[Tensor]", clips))}, file)


def launch(row: Row, file: Path) -> None:
    """`make` in the row's processes."""
    config = LaunchConfig(1, 1, row.processes, run_id=file.stem, rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    elastic_launch(config, sys.executable)(__file__, *sys.argv[1:], "--row", row.name, "--file", str(file))


def psnr(clips: list[Tensor], reference: list[Tensor]) -> float:
    """In dB, of all clips together; infinite for equal bits."""
    error = torch.stack(
        [(one.float() - other.float()).square().mean() for one, other in zip(clips, reference, strict=True)]
    ).mean()
    return 10 * math.log10(255**2 / error.item()) if error else math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--json", type=Path, help="file for the figures")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    rows = {row.name: row for row in ROWS if row.runs_here()}
    if given.row:
        make(rows[given.row], given.file, given.weights, given.prompts)
        return
    scenes, figures, reference = some_scenes(given.prompts), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(rows.values()):
            file = Path(folder) / f"{number}.safetensors"
            if row.processes > 1:
                launch(row, file)
            else:
                make(row, file, given.weights, given.prompts)
            loaded = load_file(file)
            clips = [loaded[name] for name in sorted(loaded)]
            reference = reference or clips
            figures[row.name] = accuracy(scenes, clips) | {"psnr": psnr(clips, reference)}
            shares = " ".join(f"{name} {value:.1%}" for name, value in figures[row.name].items() if name != "psnr")
            print(f"{row.name:>22}: {shares} psnr {figures[row.name]['psnr']:.1f} dB", flush=True)
    if given.json:
        device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
        given.json.write_text(
            json.dumps({"device": device, "prompts": given.prompts, "rows": figures}, indent=1) + "\n"
        )


if __name__ == "__main__":
    main()
