"""Parts to other devices: a function from `Parts` to `Parts`.

The modules themselves move, so the parts that went in are not to be used any more.
"""

from collections.abc import Mapping
from dataclasses import replace

import torch

from kandinsky.loading.adapters import with_adapters
from kandinsky.loading.assemble import configure_
from kandinsky.loading.parts import Parts, is_resident, modulation_table
from kandinsky.memory.modes import offload_modulation_
from kandinsky.model.precision import EXACT
from kandinsky.vae.autoencoder import VideoAutoencoder


def check_whole(parts: Parts, method: str) -> None:
    """Refuse parts of which not all weights are here and as they were loaded.

    Args:
        method: that needs them, for the message.

    Raises:
        ValueError: they are quantised, or shared out over processes.
    """
    buffers = [*parts.dit.buffers()]
    if parts.text_encoder is not None:
        buffers += parts.text_encoder.model.buffers()
    if parts.team.size > 1 or any(part.itemsize == 1 for part in buffers):
        raise ValueError(
            f'{method}: the weights are quantised or shared out over processes; load with precision="exact" and '
            "text_encoder_int8=False in one process"
        )


def moved(parts: Parts, devices: Mapping[str, torch.device]) -> Parts:
    """The parts on `devices`, keeping their dtype; attention and kernels are chosen anew, as "auto" does.

    Raises:
        ValueError: weights are quantised, shared out over processes, or not all resident.
    """
    check_whole(parts, "to")
    if not is_resident(parts):
        raise ValueError('to: weights come and go; load with memory="resident"')
    adapters = parts.adapters
    parts = with_adapters(parts, {}) if adapters else parts  # the table without them is made anew too
    assert parts.text_encoder is not None
    assert parts.vae is not None
    operations = EXACT.operations("auto", devices["dit"])
    parts.dit.to(devices["dit"])
    parts.text_encoder.to(devices["text_embedder"])
    autoencoder = parts.vae.autoencoder
    torch.nn.Module.to(autoencoder, devices["vae"])  # diffusers' own warns about modules that this model does not have
    vae = VideoAutoencoder.from_diffusers(autoencoder, memory_saving=parts.vae.memory_saving)
    modulation = modulation_table(parts.dit, parts.schedule)
    configure_(parts.dit, operations, attention=None, ranks=parts.team)
    offload_modulation_(parts.dit)
    source = parts.vae_source and replace(parts.vae_source, device=str(devices["vae"]), kernels="auto")
    origin = parts.origin and replace(
        parts.origin,
        devices={name: place.type for name, place in devices.items()},
        dtype=str(parts.dit.dtype).removeprefix("torch."),
        attention=parts.dit.attention.name,
        kernels=parts.dit.operations.name,
    )
    base = parts.base and replace(parts.base, modulation=modulation)
    parts = replace(parts, vae=vae, modulation=modulation, origin=origin, vae_source=source, base=base)
    return with_adapters(parts, adapters) if adapters else parts
