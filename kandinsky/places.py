"""Where and how each component runs, once the arguments are checked: device, dtype and memory mode."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from kandinsky.checkpoint import open_checkpoint
from kandinsky.config import ModelSet
from kandinsky.devices import MODULES, default_dtype
from kandinsky.hub import WeightPaths
from kandinsky.model_needs import needs_from
from kandinsky.planner import available_host, plan_or_nearest
from kandinsky.video_shape import VideoShape
from kandinsky.weight_files import Checkpoint

AMPLE_TIMES, AMPLE_BYTES = 2, 8 * 10**9
"""A GPU that has so many times the weights and so much more free is not planned for: it takes everything.

To plan takes seconds, because PyTorch imports its compiler for arithmetic on the meta device. The published model's
usual request needs 4.3 GB beside its weights."""


@dataclass(frozen=True)
class Places:
    """Settings of all components.

    Args:
        devices: of each.
        dtype: of all; None is each device's default.
        progress: show progress bars.
        modes: of memory; None until they are chosen.
        memory_saving: the VAE decodes with the least memory.
        text_encoder_int8: T5 in 8 bits.
    """

    devices: Mapping[str, torch.device]
    dtype: torch.dtype | None
    progress: bool
    modes: Mapping[str, str] | None
    memory_saving: bool
    text_encoder_int8: bool

    def mode(self, name: str) -> str:
        assert self.modes is not None, "modes have not been chosen"
        return self.modes[name]

    def dtype_of(self, name: str) -> torch.dtype:
        return self.dtype or default_dtype(self.devices[name])

    def loading(self, name: str) -> dict[str, Any]:
        """Keyword arguments of a component's loader: to the host, where it comes and goes later."""
        device = self.devices[name] if self.mode(name) == "resident" else torch.device("cpu")
        return {"device": device, "dtype": self.dtype_of(name), "progress": self.progress}

    def chosen(
        self, paths: WeightPaths, dit: Checkpoint, precision: str, *, model_set: ModelSet, alone: bool
    ) -> "Places":
        """With the modes that fit each GPU, where none were asked for.

        There is room for the model set's usual request; longer videos may need a smaller mode by name.

        Args:
            dit: its checkpoint.
            alone: one process; several hold parts of the weights, and keep them.

        Raises:
            NothingFits: no mode fits.
            ValueError: a mode was asked for that several processes cannot have.
        """
        modes: dict[str, str] = dict.fromkeys(MODULES, "resident")
        if not alone:
            if self.modes not in (None, modes):
                raise ValueError(f"memory={dict(self.modes or {})}: several processes allow only 'resident' or 'auto'")
            return replace(self, modes=modes)
        if self.modes is not None:
            return self
        free_host, memory_saving = available_host(), self.memory_saving
        for device in {device for device in self.devices.values() if device.type == "cuda"}:
            names = {name: self.dtype_of(name) for name in MODULES if self.devices[name] == device}
            if free_gpu(device) > AMPLE_TIMES * weight_bytes(paths, names, dit) + AMPLE_BYTES:
                continue
            needs_of = needs_from(
                paths, names, text_tokens=model_set.text_tokens, text_encoder_int8=self.text_encoder_int8, dit=dit
            )
            shape = VideoShape.from_request(None, None, None, model_set=model_set)
            free = {"free_gpu": free_gpu(device), "free_host": free_host}
            found = plan_or_nearest(needs_of, shape, precision, model_set=model_set, **free)
            modes |= found.modes
            free_host -= found.host
            memory_saving |= found.memory_saving
        return replace(self, modes=modes, memory_saving=memory_saving)


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
