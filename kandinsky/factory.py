"""`get_T2V_pipeline`: the published way to load a pipeline, and its help text."""

import os
from collections.abc import Mapping

import torch

from kandinsky.loading.assemble import load_parts
from kandinsky.loading.devices import DeviceMap
from kandinsky.loading.settings import settings_of
from kandinsky.memory.modes import Memory
from kandinsky.pipeline import Kandinsky4T2VPipeline


def get_T2V_pipeline(  # noqa: N802  # the published name
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
        precision: "exact", or "fast": the blocks' Linears in float8, on Hopper GPUs attention and the VAE too, which
            changes the video slightly; needs a GPU of compute capability 8.9 or newer.
        memory: where weights are while they are not used: "resident" on the GPU, "staged" in host memory, "blocks"
            there too and on the GPU only a few blocks at a time, "disk" read from their files a few blocks at a time;
            or a mapping with these for `dit`, `vae`, `text_embedder`. The result is the same. "auto" takes the fastest
            that fits 12 s (see `kandinsky plan`).
        attention: a backend of `kandinsky.model.attention.BACKENDS`, or "auto",
            which measures the exact ones once, takes the fastest that is right, and remembers it in the user's cache
            folder. With precision="fast" "auto" is "float8" where that runs.
        kernels: "torch" for plain PyTorch, without Triton in the VAE and in the attention that "auto" takes too;
            "triton" for the fused kernels; "auto" for these where they run.
        vae_memory_saving: decode with 1.3 GB less of the GPU's memory, slower; the result is the same.
        text_encoder_int8: T5's weights in 8 bits, which changes the video slightly and halves its memory.
        prompt_cache: a folder for prompts' embeddings; T5 is then loaded at the first prompt that is not in it.
        prompt: one that will be asked for: it is encoded while other weights are still being read.
        dtype: of weights and activations; None is bfloat16 on CUDA and float32 elsewhere.
        parallelism: what several processes (torchrun, or a process group of the caller's) do together: "tensor" and
            "sequence" make each video together, "none" shares out the jobs of a call. Not used by one process.
        distributed: False works alone, whatever a launcher has left in the environment (RANK, WORLD_SIZE, ...).
        local_files_only: never ask the hub.
        revision: branch, tag or commit on the hub: one for all repositories, or one for each by name, e.g.
            `{"THUDM/CogVideoX-5b": "main"}`.
        loras: low-rank weights to be merged, path and weight of each; see `load_lora_weights` of the pipeline.
        progress: show progress bars, here and in calls.

    Raises:
        ValueError: an argument is not what it may be, or no memory mode fits; nothing has been loaded.
        FileNotFoundError: weights are missing and cannot be downloaded.
        CheckpointError: a weight file is damaged or belongs to something else.
    """
    settings = settings_of(
        device_map,
        resolution,
        cache_dir,
        dit_path,
        text_encoder_path,
        tokenizer_path,
        vae_path,
        scheduler_path,
        conf_path,
        precision=precision,
        memory=memory,
        attention=attention,
        kernels=kernels,
        vae_memory_saving=vae_memory_saving,
        text_encoder_int8=text_encoder_int8,
        prompt_cache=prompt_cache,
        prompt=prompt,
        dtype=dtype,
        parallelism=parallelism,
        distributed=distributed,
        local_files_only=local_files_only,
        revision=revision,
        loras=loras,
        progress=progress,
    )
    return Kandinsky4T2VPipeline(load_parts(settings))
