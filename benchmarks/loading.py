"""Where the seconds of loading go, and how much host memory it takes: one way of loading in this process.

    python benchmarks/loading.py FOLDER [--load NAME]
    python benchmarks/loading.py --size tiny --device cpu      # to try the benchmark itself: weights of its own

FOLDER is what `kandinsky random-weights full FOLDER --device cuda` makes, best with converted copies (see `memory.py`,
which runs every way of loading, each in a process of its own). "step by step" loads every part by itself, one after the
other and waited for, which tells what each of them takes; the others load as a user does, with the parts beside each
other. A CUDA context is made before. A load cannot be repeated in a process that has loaded, so nothing warms up but
the page cache. The limit is "reading alone": the same bytes to the device and nothing else. The last line is JSON.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from script import device_in, finish, machine, parser_of

if TYPE_CHECKING:  # imports are timed
    from kandinsky.loading.parts import Parts
    from kandinsky.pipeline import Kandinsky4T2VPipeline

DIT = "kandinsky4_distil_512.pt"
"""The published file."""
LOADS = (
    "reading alone",
    "step by step",
    "ours, .safetensors",
    "ours, auto",
    "ours, .pt",
    "ours, fast",
    "torch.load + from_pretrained",
)
THREADS = (4, 8, 16)


@contextmanager
def host_peak(limit: float | None = None) -> Iterator[dict[str, float]]:
    """GB of host memory at most: `all` as the kernel counts it (file pages too), `own` without those of files.

    Args:
        limit: of `own` in GB; the process ends when it has more.
    """
    peak: dict[str, float] = {}
    done = threading.Event()

    def watch() -> None:
        while True:
            fields = status()
            own = fields.get("RssAnon", 0.0) + fields.get("RssShmem", 0.0)
            peak["own"] = max(peak.get("own", 0.0), own)
            peak["all"] = max(peak.get("all", 0.0), fields.get("VmRSS", 0.0))
            if limit is not None and own > limit:
                print(f"{own:.1f} GB of host memory of its own, the limit is {limit:g}", file=sys.stderr, flush=True)
                os._exit(1)
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


def open_context(device: torch.device) -> None:
    if device.type == "cuda":
        torch.zeros(1, device=device)
        torch.cuda.synchronize(device)


def load(folder: Path, device: torch.device, **settings: Any) -> "tuple[Kandinsky4T2VPipeline, dict]":
    """A pipeline, the seconds that took and the host memory. A CUDA context is made before."""
    start = time.perf_counter()
    from kandinsky.factory import get_T2V_pipeline

    imported = time.perf_counter()
    open_context(device)
    report: dict[str, Any] = {"import_s": imported - start, "context_s": time.perf_counter() - imported}
    with host_peak() as host:
        start = time.perf_counter()
        pipe = get_T2V_pipeline(device, cache_dir=folder, local_files_only=True, progress=False, **settings)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        report |= {"load_s": time.perf_counter() - start, "host_gb": host}
    print(
        f"  imports {report['import_s']:.1f} s, CUDA context {report['context_s']:.1f} s, load {report['load_s']:.2f} s"
    )
    return pipe, report


def load_in_steps(folder: Path, device: torch.device) -> "tuple[Parts, dict]":
    """Parts, loaded one after the other, and the seconds of each phase; the rest of the report as of `load`."""
    start = time.perf_counter()
    from load_steps import parts_in_steps

    from kandinsky.progress import Clock

    imported = time.perf_counter()
    open_context(device)
    report: dict[str, Any] = {"import_s": imported - start, "context_s": time.perf_counter() - imported}
    with host_peak() as host:
        clock = Clock(frozenset([device]))
        parts = parts_in_steps(folder, device, clock)
        report |= {"load_s": clock.total()["total"], "host_gb": host, "phases": dict(clock.seconds)}
    for name, seconds in clock.seconds.items():
        print(f"    {name:40s} {seconds:6.2f} s")
    return parts, report


def load_published(folder: Path, device: torch.device) -> dict:
    """`torch.load` and `from_pretrained`, in bfloat16; the weights only, without the published code around them."""
    start = time.perf_counter()
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel

    imported = time.perf_counter()
    open_context(device)
    with host_peak() as host:
        begin = time.perf_counter()
        dit = torch.load(folder / DIT, map_location=device, weights_only=True)
        after_dit = time.perf_counter()
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16)
        t5 = torch.nn.Module.to(t5, device)
        after_t5 = time.perf_counter()
        vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae", torch_dtype=torch.bfloat16)
        vae = torch.nn.Module.to(vae, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        end = time.perf_counter()
    assert dit
    assert next(t5.parameters()).device == next(vae.parameters()).device == device
    seconds = {"dit": after_dit - begin, "t5": after_t5 - after_dit, "vae": end - after_t5}
    return {"import_s": imported - start, "load_s": end - begin, "seconds": seconds, "host_gb": host}


def read_alone(folder: Path, device: torch.device) -> dict:
    """All weights to the device by numbers of threads, nothing else: what loading cannot be faster than."""
    from kandinsky.checkpoint.gpu_copy import read_all
    from kandinsky.checkpoint.load import open_checkpoint
    from kandinsky.checkpoint.locate import locate
    from kandinsky.config import FLASH_512

    paths = locate(folder, model_set=FLASH_512, given={}, local_files_only=True, revision={})
    checkpoints = [open_checkpoint(path) for path in (paths.text_encoder, paths.dit, paths.vae)]
    open_context(device)
    report = {}
    for count in THREADS:
        start, gigabytes = time.perf_counter(), 0.0
        for checkpoint in checkpoints:
            targets = {
                name: torch.empty(shape, dtype=checkpoint.dtype(name), device=device)
                for name, shape in checkpoint.shapes.items()
            }
            read_all([(checkpoint.source(name), target) for name, target in targets.items()], threads=count)
            gigabytes += sum(target.nbytes for target in targets.values()) / 1e9
            del targets
        seconds = time.perf_counter() - start
        report[f"{count} threads"] = {"seconds": seconds, "gb_per_s": gigabytes / seconds}
        print(f"  reading alone, {count:2d} threads: {gigabytes:.1f} GB in {seconds:.2f} s")
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return {"threads": report, "load_s": min(row["seconds"] for row in report.values())}


@contextmanager
def without_copies(folder: Path) -> Iterator[Path]:
    """A folder of links in which only the published DiT stands."""
    with tempfile.TemporaryDirectory() as name:
        links = Path(name)
        for path in folder.iterdir():
            if path.suffix != ".safetensors":
                (links / path.name).symlink_to(path.resolve())
        yield links


def measure_load(folder: Path, device: torch.device, name: str) -> dict:
    """The report of one of `LOADS`; in a process that has loaded nothing yet."""
    if name == "reading alone":
        return read_alone(folder, device)
    if name == "step by step":
        return load_in_steps(folder, device)[1]
    if name == "torch.load + from_pretrained":
        return load_published(folder, device)
    if name == "ours, .pt":
        with without_copies(folder) as links:
            return load(links, device, memory="resident")[1]
    precision = "fast" if name == "ours, fast" else "exact"
    return load(folder, device, precision=precision, memory="auto" if name == "ours, auto" else "resident")[1]


def loads_on(device: torch.device) -> tuple[str, ...]:
    """The ways of loading that a device has: float8 needs a GPU."""
    return LOADS if device.type == "cuda" else tuple(name for name in LOADS if name != "ours, fast")


def load_line(name: str, report: Mapping[str, Any]) -> str:
    """One line of a table of loading times."""
    if "import_s" not in report:
        return f"load, {name:30s} {report}"
    own, everything = report["host_gb"]["own"], report["host_gb"]["all"]
    seconds = f"{report['load_s']:.2f} s, imports before {report['import_s']:.1f} s"
    return f"load, {name:30s} {seconds}; host {own:.1f} GB own, {everything:.1f} with file pages"


@contextmanager
def weights_in(given: argparse.Namespace, parser: argparse.ArgumentParser) -> Iterator[Path]:
    """The folder that was given; at tiny size without one, one with the repository's tiny weights."""
    if given.folder is not None:
        yield given.folder
    elif given.size == "full":
        parser.error("FOLDER: needed but with --size tiny")
    else:
        from random_parts import TINY_WEIGHTS, WORKLOADS

        from kandinsky.checkpoint.model_set import write_model_set

        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in TINY_WEIGHTS.iterdir():
                (folder / part.name).symlink_to(part)
            write_model_set(folder, WORKLOADS["tiny"].model_set)
            yield folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = parser_of(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", metavar="FOLDER", help="of weights")
    parser.add_argument("--load", choices=LOADS, default="step by step", help="default: step by step")
    given = parser.parse_args(arguments)
    device = device_in(given)
    with weights_in(given, parser) as folder:
        report = measure_load(folder, device, given.load)
        print(load_line(given.load, report))
        limit = report if given.load == "reading alone" else read_alone(folder, device)
    finish({**machine(device), "size": given.size, "load": given.load, **report, "limit_s": limit["load_s"]}, given)


if __name__ == "__main__":
    main()
