"""What an option costs in pictures: the embedded tiny model under each, against itself as it is by default.

    python benchmarks/quality.py [--prompts 60] [--only NAME ...] [--json FILE]
    python benchmarks/quality.py --device cpu                   # the rows that need no GPU
    python benchmarks/quality.py --size tiny --device cpu       # to try the benchmark itself: 2 clips of a second

Captions that were held out from training; for each row the share of clips whose attributes are what the prompt says, by
a judge that is no network, and the PSNR of its frames against the first row's, the same prompts and seeds. A row is a
line in `ROWS`: arguments of the factory, a number of processes, what becomes of the VAE. Rows that this machine cannot
run are left out; the VAE's float8 alone is emulated, on any machine. The limit: clips that the world itself drew,
before the same judge. Nothing is timed. The last line is JSON.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from script import device_in, finish, machine, parser_of
from torch import Tensor
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from kandinsky.factory import get_T2V_pipeline
from kandinsky.output.options import OutputOptions
from kandinsky.output.result import FramesResult
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.request import request_of
from kandinsky.training.world.evaluate import accuracy, some_scenes
from kandinsky.training.world.grammar import Scene, caption
from kandinsky.training.world.render import render
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.float8 import EMULATED, Convert, as_they_are

WEIGHTS = Path(__file__).parents[1] / "weights" / "tiny"
PROMPTS, SECONDS = {"full": 60, "tiny": 2}, {"full": 2, "tiny": 1}


@dataclass(frozen=True)
class Row:
    """An option.

    Args:
        options: what the factory is called with.
        processes: how many call it.
        gpu: whether it needs a GPU.
        convert: what becomes of the VAE's decoder afterwards, in one process.
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    processes: int = 1
    gpu: bool = False
    convert: Convert = as_they_are

    def runs_on(self, device: torch.device) -> bool:
        return self.processes <= torch.cuda.device_count() if device.type == "cuda" else not self.gpu


ROWS = (
    Row("exact"),
    Row("kernels torch", {"kernels": "torch", "attention": "torch"}),
    Row("attention torch", {"attention": "torch"}, gpu=True),
    Row("attention cudnn", {"attention": "cudnn"}, gpu=True),
    Row("attention bounded", {"attention": "bounded"}, gpu=True),
    Row("float32", {"dtype": torch.float32, "kernels": "torch"}),
    Row("fast", {"precision": "fast"}, gpu=True),
    Row("fast, attention bounded", {"precision": "fast", "attention": "bounded"}, gpu=True),
    Row("VAE alone in float8", convert=EMULATED),
    Row("tensor, 2 processes", {"parallelism": "tensor"}, processes=2),
    Row("sequence, 2 processes", {"parallelism": "sequence"}, processes=2),
)
"""The first one is what the others are compared with."""


def make(row: Row, file: Path, given: argparse.Namespace) -> None:
    """Write a row's clips, uint8 `[frames, height, width, 3]` each."""
    options = {"cache_dir": given.weights, "local_files_only": True, "progress": False, **row.options}
    pipe = get_T2V_pipeline(device_in(given), **options)
    if row.convert is not as_they_are:
        assert pipe.vae is not None
        vae = VideoAutoencoder.from_diffusers(pipe.vae.autoencoder, convert=row.convert)
        pipe = Kandinsky4T2VPipeline(replace(pipe.parts, vae=vae))
    request = request_of(
        [caption(scene) for scene in some_scenes(given.prompts)],
        time_length=SECONDS[given.size],
        seed=0,
        model_set=pipe.model_set,
        options=OutputOptions(type="pt"),
    )
    clips: dict[str, Tensor] = {}
    for number, result in enumerate(pipe.run(request)):  # nothing on ranks that do not write
        assert isinstance(result, FramesResult)
        assert isinstance(result.frames, Tensor)
        clips[f"{number:04}"] = result.frames
    if clips:
        save_file(clips, file)


def launch(row: Row, file: Path, arguments: Sequence[str]) -> None:
    """`make` in the row's processes."""
    config = LaunchConfig(1, 1, row.processes, run_id=file.stem, rdzv_backend="c10d", rdzv_endpoint="localhost:0")
    elastic_launch(config, sys.executable)(__file__, *arguments, "--row", row.name, "--file", str(file))


def psnr(clips: Sequence[Tensor], reference: Sequence[Tensor]) -> float | None:
    """In dB, of all clips together; None for equal bits."""
    error = torch.stack(
        [(one.float() - other.float()).square().mean() for one, other in zip(clips, reference, strict=True)]
    ).mean()
    return 10 * math.log10(255**2 / error.item()) if error else None


def drawn_by_the_world(scenes: Sequence[Scene], like: Sequence[Tensor]) -> dict[str, float]:
    """What the judge says of clips that show what was asked for."""
    frames, height, width, _ = like[0].shape
    generator = torch.Generator().manual_seed(1)
    clips = render(scenes, frames, size=(height, width), generator=generator, device="cpu")
    return accuracy(scenes, list(clips))


def line(name: str, figures: Mapping[str, float | None]) -> str:
    shares = " ".join(f"{name} {value:.1%}" for name, value in figures.items() if name != "psnr" and value is not None)
    if "psnr" not in figures:
        return f"{name:>22}: {shares}"
    against = "the same bits" if figures["psnr"] is None else f"psnr {figures['psnr']:.1f} dB"
    return f"{name:>22}: {shares} {against}"


def measure_rows(
    rows: Sequence[Row], given: argparse.Namespace, arguments: Sequence[str]
) -> tuple[dict[str, Any], dict[str, float]]:
    """Figures of all rows, and of the limit; prints as it goes."""
    scenes, figures, reference = some_scenes(given.prompts), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for number, row in enumerate(rows):
            file = Path(folder) / f"{number}.safetensors"
            if row.processes > 1:
                launch(row, file, arguments)
            else:
                make(row, file, given)
            loaded = load_file(file)
            clips = [loaded[name] for name in sorted(loaded)]
            reference = reference or clips
            figures[row.name] = accuracy(scenes, clips) | {"psnr": psnr(clips, reference)}
            print(line(row.name, figures[row.name]), flush=True)
    limit = drawn_by_the_world(scenes, reference)
    print(line("limit: drawn clips", limit))
    return figures, limit


def main(arguments: Sequence[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    parser = parser_of(__doc__)
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="of the synthetic world (default: embedded)")
    parser.add_argument("--prompts", type=int, help="default: 60, at tiny size 2")
    parser.add_argument("--only", nargs="*", metavar="NAME", help="rows by name, besides the first")
    parser.add_argument("--row", help="for the processes that this starts")
    parser.add_argument("--file", type=Path, help="for the processes that this starts")
    given = parser.parse_args(arguments)
    given.prompts = given.prompts or PROMPTS[given.size]
    device = device_in(given)
    rows = {row.name: row for row in ROWS if row.runs_on(device)}
    if given.row:
        make(rows[given.row], given.file, given)
        return
    for name in given.only or ():
        if name not in rows:
            parser.error(f"--only {name!r}: on this machine there are {', '.join(map(repr, rows))}")
    wanted = [row for row in rows.values() if row == ROWS[0] or given.only is None or row.name in given.only]
    figures, limit = measure_rows(wanted, given, arguments)
    about = {**machine(device), "size": given.size, "prompts": given.prompts, "seconds": SECONDS[given.size]}
    finish({**about, "rows": figures, "limit": limit}, given)


if __name__ == "__main__":
    main()
