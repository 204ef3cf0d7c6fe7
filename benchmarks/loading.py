"""Where the seconds of loading go, and how much host memory it takes; used by `memory.py`.

Functions of the package are timed from outside, by their names. Phases overlap: some run on threads beside others.
"""

import importlib
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

PHASES = (
    ("paths", "kandinsky.factory", "locate"),
    ("plan (auto)", "kandinsky.loading.places", "plan_or_nearest"),
    ("header of the DiT", "kandinsky.factory", "open_checkpoint"),
    ("T5", "kandinsky.loading.components", "load_t5"),
    ("tokenizer (thread)", "kandinsky.loading.components", "load_tokenizer"),
    ("T5 to its home (thread)", "kandinsky.loading.components", "home_of_t5"),
    ("DiT", "kandinsky.loading.components", "load_dit"),
    ("VAE", "kandinsky.loading.components", "load_vae"),
    ("reading (in T5, DiT, VAE)", "kandinsky.checkpoint.load", "read_all"),
    ("fingerprints (thread)", "kandinsky.loading.assemble", "_fingerprints"),
    ("attention compiled (thread)", "kandinsky.loading.assemble", "prepare"),
    ("DiT to its home", "kandinsky.loading.assemble", "home_of_dit"),
    ("modulation table", "kandinsky.loading.assemble", "Kandinsky4T2VPipeline"),
    ("attention chosen", "kandinsky.loading.assemble", "choose_attention"),
    ("modulation off the GPU", "kandinsky.loading.assemble", "offload_modulation_"),
)
"""What is timed: a name, and the function where it is called."""
THREADS = (4, 8, 16)


@contextmanager
def phases() -> Iterator[list[dict[str, Any]]]:
    """Meanwhile each phase notes when it began (from now) and how many seconds it took."""
    found: list[dict[str, Any]] = []
    begin = time.perf_counter()

    def timed(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **settings: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*arguments, **settings)
            finally:
                seconds = time.perf_counter() - start
                found.append({"phase": name, "start": round(start - begin, 3), "seconds": round(seconds, 3)})

        return call

    with ExitStack() as patches:
        for name, module, function in PHASES:
            owner = importlib.import_module(module)
            patches.enter_context(patch.object(owner, function, timed(name, getattr(owner, function))))
        yield found


def print_phases(found: list[dict[str, Any]]) -> None:
    """In the order in which they began."""
    for phase in sorted(found, key=lambda phase: phase["start"]):
        print(f"    {phase['phase']:28s} from {phase['start']:6.2f} s  for {phase['seconds']:6.2f} s")


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


def load(folder: Path, device: str, **settings: Any) -> tuple[Any, dict]:
    """A pipeline, the seconds that took and the host memory. A CUDA context is made before."""
    start = time.perf_counter()
    from kandinsky.factory import get_T2V_pipeline

    imported = time.perf_counter()
    if device != "cpu":
        torch.zeros(1, device=device)
    report: dict[str, Any] = {"import_s": imported - start, "context_s": time.perf_counter() - imported}
    with host_peak() as host, phases() as found:
        start = time.perf_counter()
        pipe = get_T2V_pipeline(device, cache_dir=folder, local_files_only=True, progress=False, **settings)
        if device != "cpu":
            torch.cuda.synchronize()
        report |= {"load_s": time.perf_counter() - start, "host_gb": host, "phases": found}
    print(
        f"  imports {report['import_s']:.1f} s, CUDA context {report['context_s']:.1f} s, load {report['load_s']:.2f} s"
    )
    print_phases(found)
    return pipe, report


def load_published(folder: Path, device: str) -> dict:
    """`torch.load` and `from_pretrained`, in bfloat16; the weights only, without the published code around them."""
    start = time.perf_counter()
    from diffusers import AutoencoderKLCogVideoX
    from transformers import T5EncoderModel

    imported = time.perf_counter()
    if device != "cpu":
        torch.zeros(1, device=device)
    with host_peak() as host:
        begin = time.perf_counter()
        dit = torch.load(folder / "kandinsky4_distil_512.pt", map_location=device, weights_only=True)
        after_dit = time.perf_counter()
        t5 = T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.bfloat16).to(device)
        after_t5 = time.perf_counter()
        vae = AutoencoderKLCogVideoX.from_pretrained(folder / "vae", torch_dtype=torch.bfloat16).to(device)
        if device != "cpu":
            torch.cuda.synchronize()
        end = time.perf_counter()
    assert dit
    assert t5.device == vae.device
    seconds = {"dit": after_dit - begin, "t5": after_t5 - after_dit, "vae": end - after_t5}
    return {"import_s": imported - start, "load_s": end - begin, "seconds": seconds, "host_gb": host}


def read_alone(folder: Path, device: str) -> dict:
    """All weights to the device by numbers of threads, nothing else: what loading cannot be faster than."""
    from kandinsky.checkpoint import gpu_copy as reading
    from kandinsky.checkpoint.load import open_checkpoint, read_tensors

    device_ = torch.device(device, 0) if device != "cpu" else torch.device("cpu")
    files = [folder / name for name in ("text_encoder", "kandinsky4_distil_512.safetensors", "vae")]
    checkpoints = [open_checkpoint(path) for path in files if path.exists()]
    report = {}
    for count in THREADS:
        with patch.object(reading, "THREADS", count):
            start, gigabytes = time.perf_counter(), 0.0
            for checkpoint in checkpoints:
                tensors = read_tensors(checkpoint, checkpoint.shapes, device=device_, dtype=torch.bfloat16)
                gigabytes += sum(tensor.nbytes for tensor in tensors.values()) / 1e9
                del tensors
            seconds = time.perf_counter() - start
        report[f"{count} threads"] = {"seconds": seconds, "gb_per_s": gigabytes / seconds}
        print(f"  reading alone, {count:2d} threads: {gigabytes:.1f} GB in {seconds:.2f} s")
        if device != "cpu":
            torch.cuda.empty_cache()
    return report


def without_copies(folder: Path) -> Path:
    """A folder of links in which only the published DiT stands."""
    links = Path(tempfile.mkdtemp())
    for path in folder.iterdir():
        if path.suffix != ".safetensors":
            (links / path.name).symlink_to(path.resolve())
    return links
