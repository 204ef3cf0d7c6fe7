"""A pipeline from checked arguments: load, put together, choose how to run."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch

from kandinsky.checkpoint import dit_config, is_quantised, open_checkpoint
from kandinsky.components import TextSettings, load_components
from kandinsky.config import ModelSet
from kandinsky.hub import WeightPaths
from kandinsky.latents_file import VaeSource
from kandinsky.memory import home_of_dit, modulation_on, offload_modulation_
from kandinsky.model.attention import BACKENDS, choose_attention, prepare
from kandinsky.model.dit import DiT
from kandinsky.model.operations import PLAIN, Operations
from kandinsky.parallel import check_size, parallelise_
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.places import Places
from kandinsky.ranks import Ranks, open_group
from kandinsky.record import Origin, fingerprint
from kandinsky.sampler import Schedule
from kandinsky.weight_files import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Options:
    """Checked arguments of `get_T2V_pipeline` that are not about places."""

    model_set: ModelSet
    schedule: Schedule
    precision: str
    attention: str
    operations: Operations
    parallelism: str
    text: TextSettings


def assemble(paths: WeightPaths, checkpoint: Checkpoint, places: Places, options: Options) -> Kandinsky4T2VPipeline:
    """Load everything and put it together."""
    device, mode = places.devices["dit"], options.parallelism
    ranks = open_group(device)
    team = ranks if mode != "none" else Ranks()
    check_size(team.size, dit_config(checkpoint))
    places = replace(places, progress=places.progress and ranks.is_main)
    with ThreadPoolExecutor(2) as pool:  # beside the reading of weights
        pool.submit(prepare, options.attention, device=device, dtype=places.dtype_of("dit"))
        marks = pool.submit(_fingerprints, paths) if team.is_main else None
        parts = load_components(paths, checkpoint, places, team=team, parallelism=mode, text=options.text)
    dit, settings = parts.dit, {"model_set": options.model_set, "progress": places.progress}
    quantise = options.precision == "fast" and not is_quantised(checkpoint)
    with modulation_on(dit, device):
        home = home_of_dit(dit, device, mode=places.mode("dit"), quantise=quantise)
        pipe = Kandinsky4T2VPipeline(
            dit, parts.prompts, parts.vae, options.schedule, ranks=ranks, team=team, **settings
        )
    pipe.dit_home = home
    configure_(dit, options.operations, attention=options.attention, ranks=team, checkpoint=checkpoint)
    if parts.messenger is not None:
        parallelise_(dit, mode, parts.messenger)
    if quantise:
        from kandinsky.model.float8 import quantise_blocks_

        quantise_blocks_(dit)
    if marks is not None:
        _describe_(pipe, paths, places, options, marks.result())
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what loading alone needed is in pieces that nothing else fits in
    return pipe


def configure_(
    dit: DiT, operations: Operations, *, attention: str, ranks: Ranks, checkpoint: Checkpoint | None = None
) -> None:
    """How the DiT of a pipeline, whose modulation table is made, is to run; `checkpoint` is the one it came from."""
    head_dim, bound = dit.config.head_dim, dit.logit_bound()
    dit.operations = operations
    chosen = choose_attention(attention, device=dit.device, dtype=dit.dtype, head_dim=head_dim, bound=bound)
    dit.attention = BACKENDS[ranks.share(chosen.name)]  # measured on each rank: all take what the first one found
    offload_modulation_(dit, checkpoint)


def _describe_(
    pipe: Kandinsky4T2VPipeline, paths: WeightPaths, places: Places, options: Options, weights: Mapping[str, str]
) -> None:
    """Give the pipeline what records and latents of unfinished videos say of it."""
    device, dtype, saving = places.devices["vae"], _name(places.dtype_of("vae")), places.memory_saving
    pipe.vae_source = VaeSource(str(paths.vae.absolute()), str(device), dtype, saving)
    pipe.origin = Origin(
        devices={name: device.type for name, device in places.devices.items()},
        dtype=None if places.dtype is None else _name(places.dtype),
        precision=options.precision,
        attention=pipe.dit.attention.name,
        kernels="torch" if pipe.dit.operations is PLAIN else "triton",
        parallelism=options.parallelism if pipe.team.size > 1 else "none",
        processes=pipe.team.size,
        vae_memory_saving=saving,
        text_encoder_int8=places.text_encoder_int8,
        weights=weights,
    )


def _fingerprints(paths: WeightPaths) -> dict[str, str]:
    """What a record tells weights apart by."""
    return {name: fingerprint(open_checkpoint(getattr(paths, name))) for name in ("dit", "text_encoder", "vae")}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
