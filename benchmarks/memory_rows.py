"""The rows of `memory.py`: a memory mode under a limit, what one process measures of it, and what the planner predicts.

Nothing of the library is imported until it is needed: loading times imports.
"""

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from loading import host_peak, load, status

if TYPE_CHECKING:
    from kandinsky.output.result import Result
    from kandinsky.pipeline import Kandinsky4T2VPipeline
    from kandinsky.request import Request

PROMPTS = ("Several giant wooly mammoths approach.", "A lighthouse in a storm at night.")
Size = tuple[int, int, int]
"""Seconds, width, height."""
SIZES: dict[str, tuple[Size, ...]] = {
    "full": ((12, 672, 384), (5, 512, 512), (1, 736, 352)),
    "tiny": ((1, 48, 32), (0, 32, 32)),
}
"""The first one is timed."""
T5_IN_BLOCKS = {"dit": "resident", "vae": "resident", "text_embedder": "blocks"}


@dataclass(frozen=True)
class Row:
    """What one process does.

    Args:
        name: that it is asked for by.
        memory, precision: as `get_T2V_pipeline` takes them.
        limit: GB of the GPU.
        saving: is `vae_memory_saving`.
        host: GB of host memory that the process may have of its own.
    """

    name: str
    memory: str | dict[str, str]
    precision: str
    limit: float | None
    saving: bool = False
    host: float | None = None


ROWS = (
    Row("resident, no limit", "resident", "exact", None),
    Row("resident, fast, no limit", "resident", "fast", None),
    Row("resident, saving, limit 23", "resident", "exact", 23, saving=True),
    Row("T5 in blocks, limit 23", T5_IN_BLOCKS, "exact", 23),
    Row("staged, limit 14", "staged", "exact", 14),
    Row("blocks, limit 8", "blocks", "exact", 8),
    Row("disk, limit 8", "disk", "exact", 8, host=6),
    Row("blocks, fast, limit 6", "blocks", "fast", 6),
    Row("disk, fast, limit 6", "disk", "fast", 6, host=6),
)


def rows_on(device: torch.device) -> tuple[Row, ...]:
    """Rows that a device has: limits, modes and float8 are for GPUs."""
    return ROWS if device.type == "cuda" else ROWS[:1]


def base_of(row: Row) -> str:
    """Name of the row with whose latents this one's are compared."""
    return "resident, fast, no limit" if row.precision == "fast" else "resident, no limit"


def name_of(size: Size) -> str:
    seconds, width, height = size
    return f"{width}x{height} {seconds} s"


def measure_row(folder: Path, device: torch.device, row: Row, sizes: Sequence[Size]) -> dict:
    """The report of a row, in a process of its own; `host_gb` is the most of loading and all requests."""
    with host_peak(row.host) as host:
        report = _measured(folder, device, row, sizes)
    return {**report, "host_gb": host}


def _measured(folder: Path, device: torch.device, row: Row, sizes: Sequence[Size]) -> dict:
    cuda = device.type == "cuda"
    if row.limit is not None:
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(row.limit * 1e9 / total, device)
    pipe, report = load(folder, device, precision=row.precision, memory=row.memory, vae_memory_saving=row.saving)
    report["idle_gb"] = torch.cuda.memory_allocated(device) / 1e9 if cuda else 0.0
    report["sizes"] = {}
    for index, size in enumerate(sizes):
        for prompt in PROMPTS if index == 0 else PROMPTS[:1]:
            if cuda:
                torch.cuda.reset_peak_memory_stats(device)
                torch.cuda.empty_cache()
            found = report["sizes"][name_of(size)] = _made(pipe, prompt, size)
            seconds = {stage: round(value, 3) for stage, value in found["seconds"].items()}
            peaks = {stage: round(value, 3) for stage, value in found["peak_gb"].items()}
            print(f"  {row.name}: {name_of(size)}", seconds, peaks, flush=True)
    report["reserved_gb"] = torch.cuda.max_memory_reserved(device) / 1e9 if cuda else 0.0
    report["host_high_water_gb"] = status().get("VmHWM", 0.0)
    return report


def _made(pipe: "Kandinsky4T2VPipeline", prompt: str, size: Size) -> dict[str, Any]:
    """Figures of one video, or of an image, and a hash of its latents."""
    from kandinsky.request import request_of

    seconds, width, height = size
    with tempfile.TemporaryDirectory() as target:
        file = Path(target) / ("v.mp4" if seconds else "v.png")
        request = request_of(prompt, file, 1, seconds, width, height, seed=7, model_set=pipe.model_set)
        result, latents = _run(pipe, request)
    return {
        "seconds": dict(result.timings),
        "peak_gb": {stage: peak / 1e9 for stage, peak in result.peak_memory.items()},
        "latents": hashlib.sha256(latents.cpu().contiguous().numpy().tobytes()).hexdigest()[:16],
    }


def _run(pipe: "Kandinsky4T2VPipeline", request: "Request") -> "tuple[Result, torch.Tensor]":
    """The result of a request's only job, and its latents."""
    last: list[torch.Tensor] = []

    def remember(step: int, total: int, latents: torch.Tensor) -> None:
        if step == total:
            last.append(latents)

    (result,) = pipe.run(request, on_step=remember)
    return result, last[0]


def predictions(folder: Path, rows: Sequence[Row], sizes: Sequence[Size]) -> dict[str, dict[str, dict[str, float]]]:
    """The planner's peaks in GB for each row and size."""
    from kandinsky.checkpoint.locate import locate
    from kandinsky.checkpoint.model_set import read_model_set
    from kandinsky.config import FLASH_512, MODULES
    from kandinsky.memory.modes import modes_of
    from kandinsky.memory.needs import needs_from
    from kandinsky.memory.planner import outcome
    from kandinsky.model.precision import precision_of
    from kandinsky.video_shape import VideoShape

    model_set = read_model_set(folder) or FLASH_512
    paths = locate(folder, model_set=model_set, given={}, local_files_only=True, revision={})
    needs_of = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=model_set.text_tokens)
    gpu = {name: torch.device("cuda") for name in MODULES}
    predicted: dict[str, dict[str, dict[str, float]]] = {}
    for row in rows:
        modes = modes_of(row.memory, gpu)
        assert modes is not None
        for size in sizes:
            seconds, width, height = size
            shape = VideoShape.from_request(seconds, width, height, model_set=model_set)
            peaks = outcome(needs_of(shape, precision_of(row.precision)), modes, memory_saving=row.saving).peaks
            predicted.setdefault(row.name, {})[name_of(size)] = {stage: peak / 1e9 for stage, peak in peaks.items()}
    return predicted
