"""The VAE alone, to finish what another process sampled."""

import os
import warnings
from pathlib import Path

import torch

from kandinsky.checkpoint.fingerprint import fingerprint as fingerprint_of
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.pending import lasting, place_of
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.loading.components import load_vae, vae_conversion
from kandinsky.loading.devices import default_dtype, device_of
from kandinsky.model.precision import precision_of
from kandinsky.output.finisher import Finisher
from kandinsky.output.unfinished import VaeSource
from kandinsky.user_files.paths import user_path


def model_set_beside(source: VaeSource | None, weights: str | os.PathLike[str] | None) -> ModelSet:
    """What the VAE that `load_finisher` takes was trained for, as its folder declares."""
    return read_model_set(_vae_folder(source, weights).parent) or FLASH_512


def load_finisher(
    source: VaeSource | None,
    *,
    weights: str | os.PathLike[str] | None = None,
    device: str | None = None,
    fingerprint: str | None = None,
    progress: bool = True,
) -> Finisher:
    """Load the VAE.

    Args:
        source: the VAE that the sampling process would have used; None if that is not known.
        weights: folder of weights whose `vae` is taken instead; needed if there is no source.
        device: instead of the source's, or CUDA; its dtype then is that device's own.
        fingerprint: of the VAE that the latents were sampled for; another one is warned of.

    Raises:
        ValueError: there is no such device, or neither a source nor weights are given.
        FileNotFoundError: the VAE is not there.
        CheckpointError: its weights are damaged.
    """
    place = device_of(device or (source.device if source else "cuda"), "device")
    lasts = _vae_folder(source, weights)
    path = place_of(lasts.parent, lasts.name)
    if not path.is_dir():
        raise FileNotFoundError(f"no VAE at {path}; name the folder of the weights with --weights")
    dtype = default_dtype(place) if source is None or device is not None else getattr(torch, source.dtype)
    settings = {}
    if source is not None:
        convert = vae_conversion(precision_of(source.precision))
        settings = {"memory_saving": source.memory_saving, "kernels": source.kernels, "convert": convert}
    vae = load_vae(path, device=place, dtype=dtype, progress=progress, **settings)
    if fingerprint is not None and fingerprint_of(open_checkpoint(path)) != fingerprint:
        warnings.warn(f"{path} is not the VAE that these latents were sampled for", UserWarning, stacklevel=2)
    return Finisher(vae, model_set_beside(source, weights), progress=progress)


def _vae_folder(source: VaeSource | None, weights: str | os.PathLike[str] | None) -> Path:
    """The VAE's, or where it will be if it was just saved and is not in its place yet."""
    if weights is not None:
        return user_path(weights, "weights") / "vae"
    if source is None:
        raise ValueError("weights=None: the VAE is not known; name the folder of the weights")
    return lasting(Path(source.path))
