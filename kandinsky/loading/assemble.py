"""Settings to parts: load every component to its place, choose how the DiT runs, put it together."""

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.checkpoint.pending import lasting
from kandinsky.loading.adapters import with_adapters
from kandinsky.loading.components import load_dit, load_vae, vae_conversion
from kandinsky.loading.kept import kept
from kandinsky.loading.parts import BaseWeights, Parts, modulation_table
from kandinsky.loading.prompts import prompts_of
from kandinsky.loading.remembered import remembered_or_fastest
from kandinsky.loading.settings import Settings, exact_checkpoint
from kandinsky.loading.threads import current_gpu, switching_often
from kandinsky.memory.block_stream import Home
from kandinsky.memory.modes import home_of_dit, modulation_on, offload_modulation_
from kandinsky.model.attention import BACKENDS, Attention
from kandinsky.model.attention_choice import choose_attention, prepare, unasked
from kandinsky.model.bounded import largest
from kandinsky.model.context import ModulationTable
from kandinsky.model.dit import DiT
from kandinsky.model.isolation import isolated
from kandinsky.model.nvrtc import keep_code
from kandinsky.model.operations import PLAIN, Operations
from kandinsky.model.precision import EXACT
from kandinsky.model.sizes import is_quantised
from kandinsky.model.trial import operations_that_run
from kandinsky.output.record import Origin
from kandinsky.output.unfinished import VaeSource
from kandinsky.parallel.apply import check_size
from kandinsky.parallel.boxes import Messenger
from kandinsky.parallel.ranks import Ranks, open_group
from kandinsky.parallel.strips import strips_of
from kandinsky.progress import Stage, unwatched
from kandinsky.text.cache import PromptCache
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.rows import all_rows


@dataclass(frozen=True)
class Components:
    """What one rank has loaded.

    Args:
        prompts: the text encoder; None on ranks that are not their team's first.
        vae: None there too, unless the team decodes together.
        messenger: None where one process works alone.
    """

    dit: DiT
    prompts: PromptCache | None
    vae: VideoAutoencoder | None
    messenger: Messenger | None


@isolated()
def load_parts(settings: Settings) -> Parts:
    """Load everything and put it together.

    Raises:
        ValueError: the ranks cannot share this DiT, or the attention that was asked for cannot run it.
        CheckpointError: a weight file is damaged or belongs to something else.
    """
    device = settings.devices["dit"]
    ranks = open_group(device, distributed=settings.distributed)
    team = settings.parallelism.team(ranks)
    check_size(team.size, dit_config(settings.checkpoint))
    settings = replace(settings, progress=settings.progress and ranks.is_main)
    keep_code(partial(kept, kind="code"))
    with ThreadPoolExecutor(2) as pool:  # beside the reading of weights
        wanted = settings.attention or settings.precision.attention
        pool.submit(prepare, wanted, device=device, dtype=settings.dtypes["dit"])
        marks = pool.submit(fingerprints, settings.paths) if team.is_main else None
        loaded = load_components(settings, team, marks)
    home, modulation = make_ready_(loaded.dit, settings, team, messenger=loaded.messenger)
    parts = Parts(
        dit=loaded.dit,
        dit_home=home,
        modulation=modulation,
        schedule=settings.schedule,
        text_encoder=loaded.prompts,
        vae=loaded.vae,
        model_set=settings.model_set,
        ranks=ranks,
        team=team,
        modes={name: mode.name for name, mode in settings.modes.items()},
        origin=None if marks is None else _origin(settings, loaded.dit, team, marks.result()),
        vae_source=None if marks is None else _vae_source(settings),
        base=_base(settings, team, modulation),
        progress=settings.progress,
    )
    return with_adapters(parts, settings.loras) if settings.loras else parts


def load_components(settings: Settings, team: Ranks, marks: "Future[dict[str, str]] | None") -> Components:
    """Load what this rank needs, all of it at once.

    Reading waits for the bus, building modules and computing the VAE's kernels for the processor: each of the three has
    a thread, and T5's goes on with the tokenizer and the first prompt.

    Args:
        marks: fingerprints of the weights, which are being taken; the team's first rank needs them.
    """
    devices = settings.devices
    messenger = Messenger(team, devices["dit"]) if team.size > 1 else None
    decoding = messenger if devices["vae"] == devices["dit"] else None
    with switching_often(), ThreadPoolExecutor(2) as pool:
        prompts = pool.submit(prompts_of, settings, marks) if marks is not None else None
        vae = pool.submit(vae_of, settings, decoding) if team.is_main or decoding is not None else None
        dit = dit_of(settings, team)
        text_encoder = None if prompts is None else prompts.result()
        return Components(dit, text_encoder, None if vae is None else vae.result(), messenger)


def make_ready_(
    dit: DiT, settings: Settings, team: Ranks, *, messenger: Messenger | None = None, stage: Stage = unwatched
) -> tuple[Home | None, ModulationTable]:
    """Let a DiT that has its weights run as the settings say.

    Args:
        messenger: of the team; None where one process works alone.
        stage: entered around each step, with the step's name.

    Returns:
        What brings its weights, None if they stay, and the modulation of its timesteps.
    """
    device = settings.devices["dit"]
    # What the file has not done yet.
    missing = EXACT if is_quantised(settings.checkpoint.shapes) else settings.precision
    with modulation_on(dit, device):
        with stage("DiT to its home"):
            mode = settings.modes["dit"]
            home = home_of_dit(dit, device, mode=mode, precision=missing, checkpoint=settings.checkpoint)
        with stage("modulation table"):
            modulation = modulation_table(dit, settings.schedule)
    with stage("attention chosen"):
        preferred = settings.precision.attention
        configure_(dit, settings.operations, attention=settings.attention, ranks=team, preferred=preferred)
    with stage("modulation off the GPU"):
        offload_modulation_(dit, settings.checkpoint)
    if messenger is not None:
        settings.parallelism.apply_(dit, messenger)
    with stage("Linears to their precision"):
        for block in dit.blocks:
            missing.convert_block_(block)
    if device.type == "cuda":
        torch.cuda.empty_cache()  # what loading alone needed is in pieces that nothing else fits in
    return home, modulation


def configure_(
    dit: DiT,
    operations: Operations,
    *,
    attention: Attention | None,
    ranks: Ranks,
    preferred: Attention | None = None,
) -> None:
    """How a DiT is to run.

    Args:
        dit: with its weights.
        operations: its element-wise steps.
        attention: that was named; None is `preferred`, or what is measured.
        ranks: all take the attention that the first one has.
        preferred: by the precision, taken if it runs on all ranks; None where that leaves it open.
    """
    head_dim, logits = dit.config.head_dim, largest(dit.logits())
    place = {"device": dit.device, "dtype": dit.dtype, "head_dim": head_dim}
    dit.operations = operations_that_run(operations, model_dim=dit.config.model_dim, **place)
    pick = partial(remembered_or_fastest, device=dit.device, head_dim=head_dim)
    triton = dit.operations is not PLAIN
    if attention is None and preferred is not None:
        found = unasked(preferred, logits=logits, **place)
        attention = found if all(ranks.share(ranks.collect(found is not None)) or ()) else None
    chosen = choose_attention(attention, logits=logits, triton=triton, pick=pick, **place)
    dit.attention = BACKENDS[ranks.share(chosen.name)]  # measured on each rank


def dit_of(settings: Settings, team: Ranks) -> DiT:
    """The DiT, or this rank's part of it, with its weights."""
    parallelism = settings.parallelism
    return load_dit(
        settings.checkpoint,
        build=DiT if team.size == 1 else lambda config: parallelism.build(config, team),
        shard=None if team.size == 1 else parallelism.shard(team),
        device=settings.place("dit"),
        dtype=settings.dtypes["dit"],
        progress=settings.progress,
    )


def vae_of(settings: Settings, messenger: Messenger | None) -> VideoAutoencoder:
    """The VAE, ready to decode, its pictures in strips by the messenger's ranks, if there is one."""
    device = settings.devices["vae"]
    with current_gpu(device):
        vae = load_vae(
            settings.paths.vae,
            device=device,
            dtype=settings.dtypes["vae"],
            memory_saving=settings.memory_saving,
            rows_of=all_rows if messenger is None else strips_of(messenger),
            staged=not settings.modes["vae"].stays,
            kernels=settings.kernels,
            convert=vae_conversion(settings.precision, agree=bool if messenger is None else messenger.all),
            progress=settings.progress,
        )
        vae.warm_up()
    return vae


def _origin(settings: Settings, dit: DiT, team: Ranks, weights: Mapping[str, str]) -> Origin:
    """What records say of the pipeline."""
    return Origin(
        devices={name: device.type for name, device in settings.devices.items()},
        dtype=None if settings.dtype is None else _name(settings.dtype),
        precision=settings.precision.name,
        attention=dit.attention.name,
        kernels=dit.operations.name,
        parallelism=settings.parallelism.name if team.size > 1 else "none",
        processes=team.size,
        vae_memory_saving=settings.memory_saving,
        text_encoder_int8=settings.text_encoder_int8,
        weights=weights,
    )


def _base(settings: Settings, team: Ranks, modulation: ModulationTable) -> BaseWeights | None:
    """Where the DiT's exact weights are; None if all that is there is float8."""
    checkpoint = exact_checkpoint(settings.checkpoint, settings.model_set)
    if checkpoint is None:
        return None
    return BaseWeights(
        checkpoint=checkpoint,
        shard=None if team.size == 1 else settings.parallelism.shard(team),
        quantise=settings.precision.quantise,
        modulation=modulation,
    )


def _vae_source(settings: Settings) -> VaeSource:
    """What latents of unfinished videos say of the VAE."""
    device, dtype = settings.devices["vae"], settings.dtypes["vae"]
    folder = lasting(settings.paths.vae.absolute())
    kernels, precision = settings.kernels, settings.precision.name
    return VaeSource(str(folder), str(device), _name(dtype), settings.memory_saving, kernels, precision)


def fingerprints(paths: WeightPaths) -> dict[str, str]:
    """What a record tells weights apart by."""
    return {name: fingerprint(open_checkpoint(getattr(paths, name))) for name in ("dit", "text_encoder", "vae")}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
