"""`get_V2A_pipeline`: how V2A is loaded, in the manner of `get_T2V_pipeline`."""

import os

import torch

from kandinsky.audio.load import load_sound_parts, sound_settings_of
from kandinsky.audio.pipeline import Kandinsky4V2APipeline
from kandinsky.loading.devices import DeviceMap


def get_V2A_pipeline(  # noqa: N802  # as get_T2V_pipeline
    device_map: DeviceMap,
    cache_dir: str | os.PathLike[str] = "./weights/",
    unet_path: str | os.PathLike[str] | None = None,
    vae_path: str | os.PathLike[str] | None = None,
    scheduler_path: str | os.PathLike[str] | None = None,
    encoder_path: str | os.PathLike[str] | None = None,
    *,
    trust_remote_code: bool = False,
    encoder_revision: str | None = None,
    embedding_cache: str | os.PathLike[str] | None = None,
    dtype: torch.dtype | None = None,
    local_files_only: bool = False,
    revision: str | None = None,
    progress: bool = True,
) -> Kandinsky4V2APipeline:
    """Load Kandinsky 4.0 V2A, which makes a sound for a video.

    Args:
        device_map: a device for everything, or a mapping with `unet`, `vae` and `encoder`.
        cache_dir: the folder of all weights. Those of V2A stand in `kandinsky-4-v2a/` there, and the encoder in
            `cogvlm2-video-llama3-chat/`; what is missing is downloaded there.
        unet_path, vae_path, scheduler_path, encoder_path: explicit places; they win over `cache_dir`.
        trust_remote_code: the encoder (12 billion parameters) is Python code that runs with all of your rights. It is
            loaded at the first call that needs it, and only if this is True.
        encoder_revision: the commit of the encoder's repository that may be downloaded, as 40 hexadecimal digits. Not
            needed where the encoder stands already.
        embedding_cache: a folder for embeddings; a video and prompts that are in it need no encoder.
        dtype: of the UNet and the encoder; None is bfloat16 on CUDA and float32 elsewhere. The VAE runs in float32.
        local_files_only: never ask the hub.
        revision: branch, tag or commit of V2A's own repository.
        progress: show progress bars, here and in calls.

    Raises:
        ValueError: an argument is not what it may be; nothing has been loaded.
        NothingFits: the GPU has no room; nothing has been loaded.
        FileNotFoundError: weights are missing and cannot be downloaded; the message says what to put where.
        CheckpointError: a weight file is damaged or belongs to something else.
    """
    settings = sound_settings_of(
        device_map,
        cache_dir,
        {"unet": unet_path, "vae": vae_path, "scheduler": scheduler_path, "encoder": encoder_path},
        trust_remote_code=trust_remote_code,
        encoder_revision=encoder_revision,
        embedding_cache=embedding_cache,
        dtype=dtype,
        local_files_only=local_files_only,
        revision=revision,
        progress=progress,
    )
    return Kandinsky4V2APipeline(load_sound_parts(settings))
