"""What `loading.assemble.load_parts` does, one thing after the other, so that each can be timed by itself.

The same functions with the same arguments, in one process, for one device. The library runs some of them on threads
beside the reading of weights: their sum here is more than what a load takes. Not here: several processes, a cache of
prompts, T5 in 8 bits.
"""

from dataclasses import replace
from pathlib import Path

import torch

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.loading.components import load_dit, load_t5, load_tokenizer, load_vae
from kandinsky.loading.parts import Parts, modulation_table
from kandinsky.loading.settings import Settings, settings_of
from kandinsky.memory.block_stream import Home
from kandinsky.memory.choose import choose_modes
from kandinsky.memory.modes import Memory, home_of_dit, home_of_t5, modulation_on, offload_modulation_
from kandinsky.model.attention import choose_attention, prepare
from kandinsky.model.context import ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.model.precision import EXACT
from kandinsky.model.sizes import is_quantised
from kandinsky.progress import Clock
from kandinsky.text.encoder import TextEncoder


def parts_in_steps(folder: Path, device: torch.device, clock: Clock, *, memory: Memory, precision: str) -> Parts:
    """Load everything to one device; each step is a stage of `clock`."""
    settings = _settings(folder, device, clock, memory=memory, precision=precision)
    text_encoder = _text_encoder(settings, clock)
    with clock.stage("DiT"):
        dit = load_dit(settings.checkpoint, device=_place(settings, "dit"), dtype=settings.dtypes["dit"])
    with clock.stage("VAE"):
        vae = load_vae(
            settings.paths.vae,
            device=device,
            dtype=settings.dtypes["vae"],
            memory_saving=settings.memory_saving,
            staged=not settings.modes["vae"].stays,
        )
    with clock.stage("fingerprints"):
        paths = settings.paths
        for path in (paths.dit, paths.text_encoder, paths.vae):
            fingerprint(open_checkpoint(path))
    home, modulation = _configured(dit, device, settings, clock)
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


def _settings(folder: Path, device: torch.device, clock: Clock, *, memory: Memory, precision: str) -> Settings:
    with clock.stage("paths, header of the DiT"):
        settings = settings_of(
            device,
            cache_dir=folder,
            precision=precision,
            memory="resident" if memory == "auto" else memory,
            local_files_only=True,
            progress=False,
        )
    if memory != "auto":
        return settings
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


def _text_encoder(settings: Settings, clock: Clock) -> TextEncoder:
    device, dtype = settings.devices["text_embedder"], settings.dtypes["text_embedder"]
    with clock.stage("T5"):
        t5 = load_t5(settings.paths.text_encoder, device=_place(settings, "text_embedder"), dtype=dtype)
    with clock.stage("tokenizer"):
        tokenizer = load_tokenizer(settings.paths.tokenizer)
    with clock.stage("T5 to its home"):
        home = home_of_t5(t5, device, mode=settings.modes["text_embedder"])
    return TextEncoder(t5, tokenizer, text_tokens=settings.model_set.text_tokens, home=home)


def _configured(
    dit: DiT, device: torch.device, settings: Settings, clock: Clock
) -> tuple[Home | None, ModulationTable]:
    """What is done with a DiT that has its weights."""
    dtype, wanted = settings.dtypes["dit"], settings.attention
    missing = EXACT if is_quantised(settings.checkpoint.shapes) else settings.precision
    with clock.stage("attention compiled"):
        prepare(wanted, device=device, dtype=dtype)
    with modulation_on(dit, device):
        with clock.stage("DiT to its home"):
            home = home_of_dit(dit, device, mode=settings.modes["dit"], precision=missing)
        with clock.stage("modulation table"):
            modulation = modulation_table(dit, settings.schedule)
    dit.operations = settings.operations
    with clock.stage("attention chosen"):
        head_dim, bound = dit.config.head_dim, dit.logit_bound()
        dit.attention = choose_attention(wanted, device=device, dtype=dtype, head_dim=head_dim, bound=bound)
    with clock.stage("modulation off the GPU"):
        offload_modulation_(dit, settings.checkpoint)
    with clock.stage("Linears to their precision"):
        for block in dit.blocks:
            missing.convert_block_(block)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return home, modulation


def _place(settings: Settings, name: str) -> torch.device:
    """Where a component's weights are read to."""
    return settings.devices[name] if settings.modes[name].stays else torch.device("cpu")
