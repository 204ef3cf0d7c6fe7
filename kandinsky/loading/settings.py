"""Arguments of a load to `Settings`: every argument checked, every string turned into a value, no weight read.

`execution` and `sources` have the checks of what names no files and of what does. Headers of checkpoints are opened
here, since sizes and what a file holds are part of what is checked.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.checkpoint.files import Checkpoint
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.locate import COMPONENTS, WeightPaths
from kandinsky.checkpoint.lora import linears_of, read_lora
from kandinsky.config import ModelSet
from kandinsky.errors import CheckpointError, shown
from kandinsky.loading.devices import DeviceMap
from kandinsky.loading.execution import Execution, execution_of
from kandinsky.loading.parts import Adapter
from kandinsky.loading.sources import Weights, sources_of, weights_of
from kandinsky.memory.choose import ALL_RESIDENT, Choice, choose_modes
from kandinsky.memory.modes import Memory, Mode
from kandinsky.memory.needs import check_in_file
from kandinsky.model.attention import check_head_dim
from kandinsky.model.isolation import isolated
from kandinsky.model.precision import EXACT
from kandinsky.model.sizes import is_quantised
from kandinsky.parallel.ranks import processes_here
from kandinsky.request import is_weight
from kandinsky.sampler import Schedule
from kandinsky.user_files.paths import user_path


@dataclass(frozen=True, kw_only=True)
class Settings(Execution):
    """What is loaded, and where and how it runs.

    Args:
        model_set: what the weights were trained for.
        paths: of all components.
        checkpoint: the DiT's, open: names and shapes.
        schedule: timesteps of the sampler.
        modes: of each component: where its weights live while they are not used.
        memory_saving: the VAE decodes with the least memory.
        text_encoder_int8: T5's weights in 8 bits.
        prompt_cache: folder for embeddings that outlast the process.
        prompt: to be encoded while other weights are read.
        loras: low-rank weights to begin with, by name, read and compared with the DiT's shapes.
        progress: show progress bars, while loading and in calls.
    """

    model_set: ModelSet
    paths: WeightPaths
    checkpoint: Checkpoint
    schedule: Schedule
    modes: Mapping[str, Mode]
    memory_saving: bool
    text_encoder_int8: bool
    prompt_cache: Path | None
    prompt: str | None
    loras: Mapping[str, Adapter]
    progress: bool

    def place(self, name: str) -> torch.device:
        """Where a component's weights are read to: to the host, where they come and go later."""
        return self.devices[name] if self.modes[name].stays else torch.device("cpu")


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
    loras: Mapping[str | os.PathLike[str], float] | None = None,
    progress: bool = True,
    repository: str | None = None,
) -> Settings:
    """The settings that the arguments of `get_T2V_pipeline` mean; its docstring explains them.

    Args:
        repository: `owner/name` on the hub, whose files are taken instead of those in `cache_dir`.

    Raises:
        ValueError: an argument is not what it may be, or no memory mode fits. No file was downloaded for those that can
            be told without one.
        FileNotFoundError: weights are missing and cannot be downloaded.
        CheckpointError: a file is damaged or belongs to something else.
    """
    execution = execution_of(
        device_map,
        precision=precision,
        memory=memory,
        attention=attention,
        kernels=kernels,
        dtype=dtype,
        parallelism=parallelism,
        distributed=distributed,
    )
    embeddings = _check_prompts(prompt, prompt_cache)
    explicit = (dit_path, text_encoder_path, tokenizer_path, vae_path, scheduler_path)
    sources = sources_of(
        dict(zip(COMPONENTS, explicit, strict=True)),
        cache_dir=cache_dir,
        conf_path=conf_path,
        resolution=resolution,
        repository=repository,
        local_files_only=local_files_only,
        revision=revision,
    )
    found = weights_of(sources, execution.precision if execution.alone else EXACT)  # a rank quantises its part itself
    _check_dit(found.checkpoint, execution)
    choice = _modes(execution, found, text_encoder_int8=text_encoder_int8)
    check_in_file(
        choice.modes,
        dit=found.checkpoint,
        text_encoder=found.paths.text_encoder,
        dtypes=execution.dtypes,
        precision=execution.precision,
        text_encoder_int8=text_encoder_int8,
    )
    return Settings(
        **vars(execution),
        **vars(found),
        schedule=read_schedule(found.paths.scheduler),
        modes=choice.modes,
        memory_saving=vae_memory_saving or choice.memory_saving,
        text_encoder_int8=text_encoder_int8,
        prompt_cache=embeddings,
        prompt=prompt,
        loras=adapters_of(loras, exact_checkpoint(found.checkpoint, found.model_set)),
        progress=progress,
    )


def _check_prompts(prompt: object, prompt_cache: str | os.PathLike[str] | None) -> Path | None:
    """The folder of the cache.

    Raises:
        ValueError: it is none, or the prompt is not a text.
    """
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError(f"prompt={prompt!r}: allowed are None and one text")
    if prompt_cache is None:
        return None
    folder = user_path(prompt_cache, "prompt_cache")
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"prompt_cache={str(folder)!r} is a file; allowed is a folder, which need not be there")
    return folder


def _check_dit(checkpoint: Checkpoint, execution: Execution) -> None:
    """Refuse what the DiT's sizes or its kind of weights do not allow.

    Raises:
        ValueError: says which.
    """
    check_head_dim(execution.attention, dit_config(checkpoint).head_dim)
    if is_quantised(checkpoint.shapes) and (execution.precision.is_exact or not execution.alone):
        raise ValueError(f"{checkpoint.path} holds float8 weights: it is for precision='fast' on one GPU")


def _modes(execution: Execution, weights: Weights, *, text_encoder_int8: bool) -> Choice:
    """Where weights live: as it was asked for, or as it fits.

    Raises:
        NothingFits: no mode fits.
    """
    if execution.wanted_modes is not None or not execution.alone:
        return Choice(execution.wanted_modes or ALL_RESIDENT, memory_saving=False)
    return choose_modes(
        weights.paths,
        weights.checkpoint,
        devices=execution.devices,
        dtypes=execution.dtypes,
        precision=execution.precision,
        model_set=weights.model_set,
        text_encoder_int8=text_encoder_int8,
        processes=processes_here() if execution.several else 1,
    )


def adapters_of(
    loras: Mapping[str | os.PathLike[str], float] | None, checkpoint: Checkpoint | None
) -> dict[str, Adapter]:
    """Low-rank weights of files, each by the name of its file without the ending.

    Args:
        loras: path and weight of each.
        checkpoint: the DiT's exact weights; None if there are none.

    Raises:
        ValueError: not such a mapping, two of one name, or there are no exact weights.
        FileNotFoundError, CheckpointError: as `read_lora`.
    """
    if not isinstance(loras, Mapping | None):
        raise ValueError(f"loras={loras!r}: allowed is a mapping from files to weights, or None")
    found: dict[str, Adapter] = {}
    for given, weight in (loras or {}).items():
        path = user_path(given, "loras")
        if path.stem in found:
            raise ValueError(f"loras: two are named {path.stem!r}; load one with load_lora_weights(adapter_name=...)")
        if checkpoint is None:
            raise ValueError("loras: only float8 weights are there; merging needs the published file beside them")
        lora = read_lora(path, linears_of(checkpoint.shapes))
        found[path.stem] = Adapter(lora, weight_of(f"loras: weight of {path.stem}", weight))
    return found


def weight_of(name: str, value: object) -> float:
    """How much of low-rank weights is merged, checked.

    Raises:
        ValueError: it is no finite number of float32.
    """
    if not is_weight(value):
        raise ValueError(f"{name}={shown(value)}: allowed is a finite number of float32")
    return float(cast("float", value))


def exact_checkpoint(checkpoint: Checkpoint, model_set: ModelSet) -> Checkpoint | None:
    """The DiT's weights before they were float8: the file itself, or one that stands beside it; None if none does."""
    if not is_quantised(checkpoint.shapes):
        return checkpoint
    exact = dit_in(checkpoint.path.parent, model_set)
    return open_checkpoint(exact) if exact.is_file() else None


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
