"""Arguments of a load to `Settings`: every argument checked, every string turned into a value, no weight read.

Headers of checkpoints are opened here, since sizes and what a file holds are part of what is checked.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from kandinsky.checkpoint.conf import ConfFile, read_conf
from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.locate import COMPONENTS, WeightPaths, locate
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.config import MODEL_SETS, ModelSet
from kandinsky.errors import CheckpointError
from kandinsky.loading.devices import DeviceMap, check_dtype, check_precision, default_dtype, devices_of
from kandinsky.memory.choose import ALL_RESIDENT, Choice, choose_modes
from kandinsky.memory.modes import Memory, Mode, modes_of
from kandinsky.model.attention import Attention, attention_of
from kandinsky.model.isolation import isolated
from kandinsky.model.operations import Operations
from kandinsky.model.precision import EXACT, Precision, precision_of
from kandinsky.model.sizes import is_quantised
from kandinsky.output.paths import user_path
from kandinsky.parallel.apply import Parallelism, parallelism_of
from kandinsky.parallel.ranks import Ranks, launched, processes_here
from kandinsky.sampler import Schedule


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is loaded, and where and how it runs.

    Args:
        model_set: what the weights were trained for.
        paths: of all components.
        checkpoint: the DiT's, open: names and shapes.
        schedule: timesteps of the sampler.
        devices, dtypes, modes: of each component: where it runs, in what, and where its weights live meanwhile.
        dtype: as it was asked for; None is each device's own.
        memory_saving: the VAE decodes with the least memory.
        precision: of the blocks' Linears.
        attention: the backend that was asked for; None is measured.
        operations: the DiT's element-wise steps.
        parallelism: what several processes do together.
        distributed: whether a launcher's processes are joined.
        text_encoder_int8: T5's weights in 8 bits.
        prompt_cache: folder for embeddings that outlast the process.
        prompt: to be encoded while other weights are read.
        progress: show progress bars, while loading and in calls.
    """

    model_set: ModelSet
    paths: WeightPaths
    checkpoint: Checkpoint
    schedule: Schedule
    devices: Mapping[str, torch.device]
    dtypes: Mapping[str, torch.dtype]
    modes: Mapping[str, Mode]
    dtype: torch.dtype | None
    memory_saving: bool
    precision: Precision
    attention: Attention | None
    operations: Operations
    parallelism: Parallelism
    distributed: bool
    text_encoder_int8: bool
    prompt_cache: Path | None
    prompt: str | None
    progress: bool


@isolated()
def settings_of(
    device_map: DeviceMap,
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
    distributed: bool = True,
    local_files_only: bool = False,
    revision: str | Mapping[str, str] | None = None,
    progress: bool = True,
) -> Settings:
    """The settings that the arguments of `get_T2V_pipeline` mean; its docstring explains them.

    Raises:
        ValueError: an argument is not what it may be, or no memory mode fits.
        FileNotFoundError: weights are missing and cannot be downloaded.
        CheckpointError: a file is damaged or belongs to something else.
    """
    devices = devices_of(device_map, distributed=distributed)
    check_dtype(dtype)
    backend, level, together = attention_of(attention), precision_of(precision), parallelism_of(parallelism)
    check_precision(level, devices["dit"], dtype)
    operations = level.operations(kernels, devices["dit"])
    modes = modes_of(memory, devices)
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"prompt={prompt!r}: allowed are None and one text")
    folder = user_path(cache_dir, "cache_dir")
    conf = read_conf(None if conf_path is None else user_path(conf_path, "conf_path"))
    explicit = zip(COMPONENTS, (dit_path, text_encoder_path, tokenizer_path, vae_path, scheduler_path), strict=True)
    given = {name: user_path(path, "conf_path") for name, path in conf.paths.items()}
    given |= {name: user_path(path, f"{name}_path") for name, path in explicit if path is not None}
    folders = [*_folder_of(given.get("dit")), folder]
    resolution = conf.resolution if conf.resolution is not None else resolution
    model_set = _model_set(folders, resolution, conf)
    several = distributed and (launched() or Ranks.current().size > 1)
    alone = not (several and together.one_video)
    if not alone and modes not in (None, ALL_RESIDENT):
        raise ValueError(f"memory={memory!r}: processes that make a video together allow only 'resident', 'auto'")
    paths = locate(
        folder,
        model_set=model_set,
        given=given,
        local_files_only=local_files_only,
        revision=revisions_of(revision, (model_set.dit_repository, model_set.components_repository)),
        precision=level if alone else EXACT,  # a rank quantises its part of the weights itself
    )
    model_set = _model_set(folders, resolution, conf)  # which may have come with the weights
    checkpoint = open_checkpoint(paths.dit)
    conf.check_sizes(dit_config(checkpoint))
    _check_quantised(checkpoint, level, alone=alone)
    dtypes = {name: dtype or default_dtype(device) for name, device in devices.items()}
    choice = Choice(modes or ALL_RESIDENT, memory_saving=False)
    if modes is None and alone:
        choice = choose_modes(
            paths,
            checkpoint,
            devices=devices,
            dtypes=dtypes,
            precision=level,
            model_set=model_set,
            text_encoder_int8=text_encoder_int8,
            processes=processes_here() if several else 1,
        )
    return Settings(
        model_set=model_set,
        paths=paths,
        checkpoint=checkpoint,
        schedule=read_schedule(paths.scheduler),
        devices=devices,
        dtypes=dtypes,
        modes=choice.modes,
        dtype=dtype,
        memory_saving=vae_memory_saving or choice.memory_saving,
        precision=level,
        attention=backend,
        operations=operations,
        parallelism=together,
        distributed=distributed,
        text_encoder_int8=text_encoder_int8,
        prompt_cache=None if prompt_cache is None else user_path(prompt_cache, "prompt_cache"),
        prompt=prompt,
        progress=progress,
    )


def read_schedule(path: Path) -> Schedule:
    """The schedule in a `scheduler_config.json`, or in a folder that has one.

    Raises:
        CheckpointError: it is not such a file, or asks for another sampler than ours.
    """
    file = path / "scheduler_config.json" if path.is_dir() else path
    try:
        return Schedule.from_config(json_of(file, what="a scheduler configuration"))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{file} is not a scheduler configuration for this sampler: {error}") from error


def _check_quantised(checkpoint: Checkpoint, precision: Precision, *, alone: bool) -> None:
    if is_quantised(checkpoint.shapes) and (precision.is_exact or not alone):
        raise ValueError(f"{checkpoint.path} holds float8 weights: it is for precision='fast' on one GPU")


def _folder_of(path: Path | None) -> list[Path]:
    """That of a file or the folder itself; empty for None."""
    return [] if path is None else [path if path.is_dir() else path.parent]


def _model_set(folders: Sequence[Path], resolution: int, conf: ConfFile) -> ModelSet:
    """What the first of some folders that does so declares its weights to be, else the published set.

    The DiT was trained for it, so a folder of its own is asked before the one of all weights.
    """
    if resolution not in MODEL_SETS:
        raise ValueError(f"resolution={resolution!r}: allowed is {', '.join(map(str, MODEL_SETS))}")
    model_set = next((own for folder in folders if (own := read_model_set(folder))), MODEL_SETS[resolution])
    return model_set if conf.text_tokens is None else dataclasses.replace(model_set, text_tokens=conf.text_tokens)


def revisions_of(revision: str | Mapping[str, str] | None, repositories: Sequence[str]) -> Mapping[str, str]:
    """The revision of each repository: one for all, or as they are named; those that are not get their newest.

    Raises:
        ValueError: it is neither a text nor a mapping, or names another repository.
    """
    if isinstance(revision, str):
        return dict.fromkeys(repositories, revision)
    if not isinstance(revision, Mapping | None):
        raise ValueError(f"revision={revision!r}: allowed are a text for all repositories, a mapping, and None")
    unknown = [name for name in revision or {} if name not in repositories]
    if unknown:
        raise ValueError(f"revision names {unknown[0]!r}; the repositories are {', '.join(repositories)}")
    return revision or {}
