"""What `loading.assemble.load_parts` does, one thing after the other, so that each can be timed by itself.

The same functions with the same arguments, in one process, for one device. The library runs some of them on threads
beside the reading of weights: their sum here is more than what a load takes. Not here: several processes, a cache of
prompts, T5 in 8 bits.
"""

from dataclasses import replace
from pathlib import Path

import torch

from kandinsky.loading.assemble import dit_of, fingerprints, make_ready_, vae_of
from kandinsky.loading.parts import Parts
from kandinsky.loading.prompts import text_encoder_of
from kandinsky.loading.settings import Settings, settings_of
from kandinsky.memory.choose import choose_modes
from kandinsky.model.attention_choice import prepare
from kandinsky.parallel.ranks import Ranks
from kandinsky.progress import Clock


def parts_in_steps(folder: Path, device: torch.device, clock: Clock) -> Parts:
    """Load everything to one device; each step is a stage of `clock`."""
    settings, alone = _settings(folder, device, clock), Ranks()
    text_encoder = text_encoder_of(settings, stage=clock.stage)
    with clock.stage("DiT"):
        dit = dit_of(settings, alone)
    with clock.stage("VAE"):
        vae = vae_of(settings, None)
    with clock.stage("fingerprints"):
        fingerprints(settings.paths)
    with clock.stage("attention compiled"):
        prepare(settings.attention or settings.precision.attention, device=device, dtype=settings.dtypes["dit"])
    home, modulation = make_ready_(dit, settings, alone, stage=clock.stage)
    return Parts(
        dit=dit,
        dit_home=home,
        modulation=modulation,
        schedule=settings.schedule,
        text_encoder=text_encoder,
        vae=vae,
        model_set=settings.model_set,
        progress=False,
    )


def _settings(folder: Path, device: torch.device, clock: Clock) -> Settings:
    """The planner chooses the modes, in a step of its own."""
    with clock.stage("paths, header of the DiT"):
        settings = settings_of(device, cache_dir=folder, memory="resident", local_files_only=True, progress=False)
    with clock.stage("plan (auto)"):
        choice = choose_modes(
            settings.paths,
            settings.checkpoint,
            devices=settings.devices,
            dtypes=settings.dtypes,
            precision=settings.precision,
            model_set=settings.model_set,
            text_encoder_int8=settings.text_encoder_int8,
        )
    return replace(settings, modes=choice.modes, memory_saving=choice.memory_saving)
