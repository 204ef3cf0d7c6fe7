"""The door to the planner: which memory modes the components of a model set get on the devices of this machine.

It measures what is free, reads headers of checkpoints for what is needed, and asks `planner`. Plain mappings go in;
modes come out.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.config import MODULES, ModelSet
from kandinsky.memory.modes import RESIDENT, Mode
from kandinsky.memory.needs import needs_from
from kandinsky.memory.planner import LADDER, Plan, outcome, plan_or_nearest
from kandinsky.model.precision import Precision
from kandinsky.video_shape import VideoShape

_log = logging.getLogger(__name__)
AMPLE_TIMES, AMPLE_BYTES = 2, 8 * 10**9
"""A GPU that has so many times the weights and so much more free is not planned for: it takes everything.

To plan takes seconds, because PyTorch imports its compiler for arithmetic on the meta device. The published model's
usual request needs 4.3 GB beside its weights."""


@dataclass(frozen=True)
class Choice:
    """The mode of each component, and whether the VAE decodes with the least memory."""

    modes: Mapping[str, Mode]
    memory_saving: bool


ALL_RESIDENT: Mapping[str, Mode] = dict.fromkeys(MODULES, RESIDENT)


def choose_modes(
    paths: WeightPaths,
    dit: Checkpoint,
    *,
    devices: Mapping[str, torch.device],
    dtypes: Mapping[str, torch.dtype],
    precision: Precision,
    model_set: ModelSet,
    text_encoder_int8: bool,
    processes: int = 1,
    free_on: Callable[[torch.device], int] | None = None,
    free_host: int | None = None,
) -> Choice:
    """The fastest modes that fit each GPU.

    There is room for the model set's usual request; longer videos may need a smaller mode by name. What is taken and
    why is logged: as a warning where blocks are read from their files, which is slower.

    Args:
        dit: its checkpoint.
        devices, dtypes: of each component.
        processes: on this machine that load the same, each on a GPU of its own: they share the host's memory.
        free_on: bytes that this process can have on a device; None asks `free_gpu`.
        free_host: bytes of the host, for all processes; None asks `available_host`.

    Raises:
        NothingFits: no mode fits.
    """
    modes, memory_saving = dict(ALL_RESIDENT), False
    free_host = (available_host() if free_host is None else free_host) // processes
    shape = VideoShape.from_request(None, None, None, model_set=model_set)
    for device in {device for device in devices.values() if device.type == "cuda"}:
        names = {name: dtypes[name] for name in MODULES if devices[name] == device}
        free = (free_on or free_gpu)(device)
        if free > AMPLE_TIMES * weight_bytes(paths, names, dit) + AMPLE_BYTES:
            continue
        needs_of = needs_from(
            paths, names, text_tokens=model_set.text_tokens, text_encoder_int8=text_encoder_int8, dit=dit
        )
        found = plan_or_nearest(needs_of, shape, precision, model_set=model_set, free_gpu=free, free_host=free_host)
        modes |= found.modes
        from_file = any(mode.from_file for mode in found.modes.values())
        _log.log(
            logging.WARNING if from_file else logging.INFO, "memory on %s: %s: %s", device, found.name, found.reason
        )
        free_host -= found.host
        memory_saving |= found.memory_saving
    return Choice(modes, memory_saving)


def compare_modes(
    paths: WeightPaths,
    shape: VideoShape,
    precision: Precision,
    *,
    model_set: ModelSet,
    free_gpu: int,
    free_host: int,
) -> tuple[Plan, list[Plan]]:
    """What one GPU with so many bytes free would get for a request, and what each mode takes.

    Raises:
        NothingFits: no mode fits; the message names what would.
    """
    needs_of = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=model_set.text_tokens)
    needs = needs_of(shape, precision)
    chosen = plan_or_nearest(needs_of, shape, precision, free_gpu=free_gpu, free_host=free_host, model_set=model_set)
    found = [outcome(needs, modes, memory_saving=saving) for saving in (False, True) for modes in LADDER.values()]
    return chosen, found


def available_host(root: Path = Path("/")) -> int:
    """Bytes of host memory that can be had without swapping.

    In a container (control groups, version 2) no more than its limit leaves.

    Args:
        root: of the file system that Linux tells it in; other systems are asked by psutil.
    """
    path = root / "proc/meminfo"
    if path.is_file() and (free := _fields(path).get("MemAvailable:")):
        available = int(free) * 1024
    else:
        import psutil

        available = psutil.virtual_memory().available
    group = root / "sys/fs/cgroup"
    limit = group / "memory.max"
    if limit.is_file() and limit.read_text().strip() != "max":
        pages = int(_fields(group / "memory.stat")["inactive_file"])  # of files, given up when memory is asked for
        used = int((group / "memory.current").read_text()) - pages
        available = min(available, int(limit.read_text()) - used)
    return available


def _fields(path: Path) -> dict[str, str]:
    """The first two words of each line."""
    return {words[0]: words[1] for words in map(str.split, path.read_text().splitlines()) if len(words) > 1}


def weight_bytes(paths: WeightPaths, names: Mapping[str, torch.dtype], dit: Checkpoint) -> int:
    """Of some components as they are computed with, float8 not considered: headers are read, weights are not."""
    files = {"text_embedder": paths.text_encoder, "vae": paths.vae}
    shapes = {name: dit.shapes if name == "dit" else open_checkpoint(files[name]).shapes for name in names}
    return sum(torch.Size(shape).numel() * names[name].itemsize for name in names for shape in shapes[name].values())


def free_gpu(device: torch.device) -> int:
    """Bytes that this process can have: free ones, those its allocator keeps, less what it was forbidden to take."""
    free, total = torch.cuda.mem_get_info(device)
    allocated = torch.cuda.memory_allocated(device)
    allowed = int(torch.cuda.get_per_process_memory_fraction(device) * total) - allocated
    return min(free + torch.cuda.memory_reserved(device) - allocated, allowed)
