"""Arguments to `SoundSettings`, checked, and these to `SoundParts`: as `loading/` does it for text to video."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.audio.embeddings import EmbeddingCache
from kandinsky.audio.encoder import Encoder, check_revision, check_trust, load_encoder
from kandinsky.audio.parts import SoundParts
from kandinsky.audio.record import SoundOrigin
from kandinsky.audio.unet import build_unet
from kandinsky.audio.weights import SoundPaths, fetch_encoder, locate_encoder, locate_sound
from kandinsky.checkpoint.files import Checkpoint, Renamed
from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.load import load_weights, open_checkpoint, read_config
from kandinsky.errors import CheckpointError
from kandinsky.loading.devices import DeviceMap, check_dtype, default_dtype, device_of
from kandinsky.memory.choose import free_gpu
from kandinsky.memory.sound import ENCODER_BYTES, check_sound_fits, sound_bytes
from kandinsky.user_files.paths import user_path

FilePath = str | os.PathLike[str]
MODULES = ("unet", "vae", "encoder")
"""Keys of `device_map`."""
VAE_DTYPE = torch.float32
"""Pixels have 8 bits: bfloat16 would lose some of them, and float16, as published, may overflow."""
OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""Of the attention in a VAE's file that an old diffusers has written, and today's."""


@dataclass(frozen=True, kw_only=True)
class LazyEncoder:
    """The encoder in a folder, loaded (and downloaded) when it is first asked.

    Args:
        folder: where it is, or is downloaded to.
        revision: commit that may be downloaded.
        trusted: what the user said for `trust_remote_code`.
        local_files_only: never ask the hub.
        device, dtype: where and in what it runs.
    """

    folder: Path
    revision: str | None
    trusted: bool
    local_files_only: bool
    device: torch.device
    dtype: torch.dtype

    @property
    def mark(self) -> str:
        return f"{self.folder.name} {self.revision or 'as it stands'}"

    @property
    def is_here(self) -> bool:
        return (self.folder / "config.json").is_file()

    def check(self) -> None:
        """Look whether the encoder may be loaded.

        Raises:
            ValueError: nobody has vouched for its code, or said which of it is to be downloaded.
        """
        check_trust(self.trusted)
        if not self.is_here and not self.local_files_only:
            check_revision(self.revision)

    @cached_property
    def encoder(self) -> Encoder:
        """Loaded now if it is not yet."""
        self.check()
        if not self.is_here:
            fetch_encoder(self.folder, self.revision or "", local_files_only=self.local_files_only)
        if self.device.type == "cuda":
            check_sound_fits(encoder_bytes(self.folder), free_gpu(self.device))
        with torch.inference_mode(False):
            return load_encoder(self.folder, device=self.device, dtype=self.dtype)

    def __call__(self, video: Tensor, prompt: str) -> tuple[Tensor, Tensor]:
        return self.encoder(video, prompt)


@dataclass(frozen=True, kw_only=True)
class SoundSettings:
    """Checked arguments of `get_V2A_pipeline`."""

    devices: Mapping[str, torch.device]
    dtype: torch.dtype
    paths: SoundPaths
    encoder: LazyEncoder
    cache: EmbeddingCache | None
    progress: bool


def sound_settings_of(
    device_map: DeviceMap,
    cache_dir: FilePath,
    given: Mapping[str, FilePath | None],
    *,
    trust_remote_code: bool,
    encoder_revision: str | None,
    embedding_cache: FilePath | None,
    dtype: torch.dtype | None,
    local_files_only: bool,
    revision: str | None,
    progress: bool,
) -> SoundSettings:
    """What the arguments of `get_V2A_pipeline` mean; its docstring explains them. Missing weights are downloaded.

    Args:
        given: path of each component, `encoder` among them; None where none is given.

    Raises:
        ValueError: an argument is not what it may be.
        FileNotFoundError, CheckpointError: as `get_V2A_pipeline`.
    """
    devices = sound_devices_of(device_map)
    check_dtype(dtype)
    if not isinstance(trust_remote_code, bool):
        raise ValueError(f"trust_remote_code={trust_remote_code!r}: allowed are True and False")
    if encoder_revision is not None:
        check_revision(encoder_revision)
    folder = user_path(cache_dir, "cache_dir")
    paths = {name: user_path(path, f"{name}_path") for name, path in given.items() if path is not None}
    encoder = LazyEncoder(
        folder=locate_encoder(folder, paths.pop("encoder", None)),
        revision=encoder_revision,
        trusted=trust_remote_code,
        local_files_only=local_files_only,
        device=devices["encoder"],
        dtype=default_dtype(devices["encoder"]) if dtype is None else dtype,
    )
    kept = None if embedding_cache is None else user_path(embedding_cache, "embedding_cache")
    return SoundSettings(
        devices=devices,
        dtype=default_dtype(devices["unet"]) if dtype is None else dtype,
        paths=locate_sound(folder, paths, local_files_only=local_files_only, revision=revision),
        encoder=encoder,
        cache=None if kept is None else EmbeddingCache(kept, encoder.mark),
        progress=progress,
    )


def sound_devices_of(device_map: DeviceMap) -> dict[str, torch.device]:
    """A device for each of `MODULES`.

    Raises:
        ValueError: an unknown or missing key, or a device that does not exist here.
    """
    if isinstance(device_map, str | torch.device):
        return dict.fromkeys(MODULES, device_of(device_map, "device_map"))
    if not isinstance(device_map, Mapping) or sorted(device_map) != sorted(MODULES):
        raise ValueError(
            f"device_map={device_map!r}: allowed is a device, or a mapping with the keys {', '.join(MODULES)}"
        )
    return {name: device_of(device_map[name], f"device_map[{name!r}]") for name in MODULES}


def load_sound_parts(settings: SoundSettings) -> SoundParts:
    """Everything that runs, on its device; the encoder is loaded when it is first asked.

    Raises:
        NothingFits: a GPU has no room; nothing was loaded.
        CheckpointError: a file is damaged or belongs to something else.
    """
    unet_config = read_config(settings.paths.unet, "_class_name", "UNet2DConditionModel")
    vae_config = read_config(settings.paths.vae, "_class_name", "AutoencoderKL")
    scheduler = _scheduler_config(settings.paths.scheduler)
    unet_file, vae_file = open_checkpoint(settings.paths.unet), _with_todays_names(open_checkpoint(settings.paths.vae))
    dtypes = {"unet": settings.dtype, "vae": VAE_DTYPE}
    files = {"unet": unet_file, "vae": vae_file}
    for device in {settings.devices[name] for name in files if settings.devices[name].type == "cuda"}:
        here = {name: file for name, file in files.items() if settings.devices[name] == device}
        check_sound_fits(sound_bytes(here, dtypes), free_gpu(device))
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        unet = build_unet(unet_config)
        vae: Any = AutoencoderKL.from_config(vae_config)
    for name, module in (("unet", unet), ("vae", vae)):
        place = {"device": settings.devices[name], "dtype": dtypes[name], "progress": settings.progress}
        load_weights(module, files[name], **place)
    return SoundParts(
        unet=unet,
        vae=vae,
        scheduler=scheduler,
        encoder=settings.encoder,
        cache=settings.cache,
        origin=SoundOrigin(
            devices={name: device.type for name, device in settings.devices.items()},
            dtype=str(settings.dtype).removeprefix("torch."),
            weights={name: fingerprint(file) for name, file in files.items()},
        ),
        progress=settings.progress,
    )


def sound_needs_in(cache_dir: Path) -> tuple[int, int]:
    """Bytes that V2A takes of a GPU in bfloat16, and what its encoder takes beside them; only headers are read.

    Raises:
        FileNotFoundError, CheckpointError: its weights are missing or damaged.
    """
    paths = locate_sound(cache_dir, {}, local_files_only=True, revision=None)
    files = {"unet": open_checkpoint(paths.unet), "vae": open_checkpoint(paths.vae)}
    needed = sound_bytes(files, {"unet": torch.bfloat16, "vae": VAE_DTYPE})
    return needed, encoder_bytes(locate_encoder(cache_dir, None))


def encoder_bytes(folder: Path) -> int:
    """Of an encoder's weights; those of the published one where it is not there."""
    return sum(file.stat().st_size for file in folder.glob("*.safetensors")) or ENCODER_BYTES


def _scheduler_config(path: Path) -> dict[str, Any]:
    """The configuration in a `scheduler_config.json`, or in a folder that has one."""
    file = path / "scheduler_config.json" if path.is_dir() else path
    config = json_of(file, what="a scheduler configuration")
    if not isinstance(config, dict) or config.get("_class_name") != "PNDMScheduler":
        raise CheckpointError(f"{file} is not the configuration of a PNDMScheduler")
    return config


def _with_todays_names(vae: Checkpoint) -> Checkpoint:
    """A VAE's checkpoint under the names that diffusers has now."""
    names = {name: name for name in vae.shapes}
    for name in vae.shapes:
        head, _, leaf = name.rpartition(".")
        owner, _, last = head.rpartition(".")
        if ".attentions." in name and last in OLD_NAMES:
            names[f"{owner}.{OLD_NAMES[last]}.{leaf}"] = names.pop(name)
    return vae if all(new == old for new, old in names.items()) else Renamed(vae, names, {}, [])
