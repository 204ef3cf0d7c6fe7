"""`get_T2V_pipeline`: the only place that knows everything.

It checks its arguments, finds the weights, loads each module where it is to run, and hands them to the pipeline.
"""

import dataclasses
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch

from kandinsky.assembly import Options, assemble
from kandinsky.checkpoint import CheckpointError, dit_config, is_quantised, open_checkpoint
from kandinsky.components import TextSettings
from kandinsky.conf_file import ConfFile, read_conf
from kandinsky.config import MODEL_SETS, ModelSet
from kandinsky.devices import check_device_map, check_dtype, check_precision, default_dtype
from kandinsky.finish import Finisher
from kandinsky.hub import COMPONENTS, locate
from kandinsky.latents_file import VaeSource
from kandinsky.memory import Memory, check_memory
from kandinsky.model.attention import check_attention
from kandinsky.model.operations import choose_operations
from kandinsky.model_set_file import read_model_set
from kandinsky.parallel import check_mode
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.places import Places
from kandinsky.ranks import Ranks, launched
from kandinsky.sampler import Schedule
from kandinsky.vae.autoencoder import load_vae
from kandinsky.weight_files import Checkpoint


def get_T2V_pipeline(  # noqa: N802  # the published name
    device_map: str | torch.device | Mapping[str, str | torch.device],
    resolution: int = 512,
    cache_dir: str | os.PathLike[str] = "./weights/",
    dit_path: str | os.PathLike[str] | None = None,
    text_encoder_path: str | os.PathLike[str] | None = None,
    tokenizer_path: str | os.PathLike[str] | None = None,
    vae_path: str | os.PathLike[str] | None = None,
    scheduler_path: str | os.PathLike[str] | None = None,
    conf_path: str | os.PathLike[str] | None = None,
    *,
    precision: str = "exact",
    memory: Memory = "auto",
    attention: str = "auto",
    kernels: str = "auto",
    vae_memory_saving: bool = False,
    text_encoder_int8: bool = False,
    prompt_cache: str | os.PathLike[str] | None = None,
    prompt: str | None = None,
    dtype: torch.dtype | None = None,
    parallelism: str = "tensor",
    local_files_only: bool = False,
    revision: Mapping[str, str] | None = None,
    progress: bool = True,
) -> Kandinsky4T2VPipeline:
    """Load the model set and return the pipeline.

    Args:
        device_map: a device for everything, or a mapping with `dit`, `vae` and `text_embedder`. "cuda" is the first
            GPU, or under a launcher the one with this process's local rank.
        resolution: of the published model set; 512.
        cache_dir: where the weights stand; what is missing is downloaded there. A `model_set.json` there says what
            its weights were trained for; without it they are taken for the published ones.
        dit_path, text_encoder_path, tokenizer_path, vae_path, scheduler_path: explicit places; they win over
            `conf_path` and `cache_dir`.
        conf_path: YAML file in the published schema; wins over `cache_dir` and `resolution`.
        precision: "exact", or "fast": the blocks' Linears in float8, which changes the video slightly; needs a GPU of
            compute capability 8.9 or newer.
        memory: where weights are while they are not used: "resident" on the GPU, "staged" in host memory, "blocks"
            there too and on the GPU only a few blocks at a time; or a mapping with these for `dit`, `vae`,
            `text_embedder`. The result is the same. "auto" takes the fastest that fits 12 s (see `planner`).
        attention: a backend of `kandinsky.model.attention.BACKENDS`, or "auto",
            which measures them once and takes the fastest that is right.
        kernels: "torch" for plain PyTorch, "triton" for the fused kernels, or "auto".
        vae_memory_saving: decode with 1.3 GB less of the GPU's memory, slower; the result is the same.
        text_encoder_int8: T5's weights in 8 bits, which changes the video slightly and halves its memory.
        prompt_cache: a folder for prompts' embeddings; T5 is then loaded at the first prompt that is not in it.
        prompt: one that will be asked for: it is encoded while other weights are still being read.
        dtype: of weights and activations; None is bfloat16 on CUDA and float32 elsewhere.
        parallelism: what several processes (torchrun, or a process group of the caller's) do together: "tensor" and
            "sequence" make each video together, "none" shares out the jobs of a call. Not used by one process.
        local_files_only: never ask the hub.
        revision: branch, tag or commit for each hub repository, e.g. `{"THUDM/CogVideoX-5b": "main"}`.
        progress: show progress bars, here and in calls.

    Raises:
        ValueError: an argument is not what it may be, or no memory mode fits; nothing has been loaded.
        FileNotFoundError: weights are missing and cannot be downloaded.
        CheckpointError: a weight file is damaged or belongs to something else.
    """
    devices = check_device_map(device_map)
    check_dtype(dtype)
    check_attention(attention)
    check_precision(precision, devices["dit"], dtype)
    check_mode(parallelism)
    operations = choose_operations(kernels, devices["dit"], quantise=precision == "fast")
    modes = check_memory(memory, devices)
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"prompt={prompt!r}: allowed are None and one text")
    conf = read_conf(conf_path)
    model_set = _model_set(Path(cache_dir), conf.resolution if conf.resolution is not None else resolution, conf)
    alone = not launched() and Ranks.current().size == 1
    explicit = zip(COMPONENTS, (dit_path, text_encoder_path, tokenizer_path, vae_path, scheduler_path), strict=True)
    paths = locate(
        Path(cache_dir),
        model_set=model_set,
        given={**conf.paths, **{name: Path(path) for name, path in explicit if path is not None}},
        local_files_only=local_files_only,
        revision=_check_revision(revision, model_set),
        precision=precision if alone else "exact",  # a rank quantises its part of the weights itself
    )
    schedule = _load_schedule(paths.scheduler)
    checkpoint = open_checkpoint(paths.dit)
    conf.check_sizes(dit_config(checkpoint))
    _check_quantised(checkpoint, precision, alone=alone)
    places = Places(
        devices, dtype, progress, modes=modes, memory_saving=vae_memory_saving, text_encoder_int8=text_encoder_int8
    )
    places = places.chosen(paths, checkpoint, precision, model_set=model_set, alone=alone)
    folder = None if prompt_cache is None else Path(prompt_cache)
    options = Options(
        model_set=model_set,
        schedule=schedule,
        precision=precision,
        attention=attention,
        operations=operations,
        parallelism=parallelism,
        text=TextSettings(model_set.text_tokens, folder, prompt),
    )
    return assemble(paths, checkpoint, places, options)


def _check_quantised(checkpoint: Checkpoint, precision: str, *, alone: bool) -> None:
    if is_quantised(checkpoint) and (precision != "fast" or not alone):
        raise ValueError(f"{checkpoint.path} holds float8 weights: it is for precision='fast' on one GPU")


def load_finisher(
    source: VaeSource | None,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    progress: bool = True,
) -> Finisher:
    """Load the VAE alone, to finish what was sampled.

    Args:
        source: the VAE that the sampling process would have used; None if that is not known.
        weights: folder of weights whose `vae` is taken instead; needed if there is no source.
        device: instead of the source's, or CUDA; its dtype then is that device's own.

    Raises:
        ValueError: there is no such device.
        FileNotFoundError: the VAE is not there.
        CheckpointError: its weights are damaged.
    """
    place = check_device_map(device or (source.device if source else "cuda"))["vae"]
    assert source is not None or weights is not None
    path = Path(weights) / "vae" if weights is not None else Path(source.path)  # type: ignore[union-attr]
    if not path.is_dir():
        raise FileNotFoundError(f"no VAE at {path}; name the folder of the weights with --weights")
    dtype = getattr(torch, source.dtype) if source is not None and device is None else default_dtype(place)
    saving = source is not None and source.memory_saving
    vae = load_vae(path, device=place, dtype=dtype, memory_saving=saving, progress=progress)
    return Finisher(vae, progress=progress)


def _model_set(cache_dir: Path, resolution: int, conf: ConfFile) -> ModelSet:
    """What the weights declare themselves to be, else the published set of this resolution."""
    if resolution not in MODEL_SETS:
        raise ValueError(f"resolution={resolution!r}: allowed is {', '.join(map(str, MODEL_SETS))}")
    model_set = read_model_set(cache_dir) or MODEL_SETS[resolution]
    return model_set if conf.text_tokens is None else dataclasses.replace(model_set, text_tokens=conf.text_tokens)


def _check_revision(revision: Mapping[str, str] | None, model_set: ModelSet) -> Mapping[str, str]:
    repositories = (model_set.dit_repository, model_set.components_repository)
    unknown = [name for name in revision or {} if name not in repositories]
    if unknown:
        raise ValueError(f"revision names {unknown[0]!r}; the repositories are {', '.join(repositories)}")
    return revision or {}


def _load_schedule(path: Path) -> Schedule:
    file = path / "scheduler_config.json" if path.is_dir() else path
    try:
        return Schedule.from_config(json.loads(file.read_text()))
    except (json.JSONDecodeError, KeyError) as error:
        raise CheckpointError(f"{file} is not a scheduler configuration: {error!r}") from error
