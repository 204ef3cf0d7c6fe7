"""Latents to frames: the CogVideoX causal VAE of diffusers, decoded chunk by chunk.

GroupNorm statistics are taken per chunk, so the chunking (3, 2, 2, ... latent frames) is part of the function and is
kept as published. Source: CogVideoX (arXiv 2408.06072), SPEC of the published pipeline.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.checkpoint import load_weights, open_checkpoint, read_config

LATENT_FRAMES_PER_CHUNK = 2


def chunk_bounds(latent_frames: int) -> list[tuple[int, int]]:
    """(start, stop) of each chunk of latent frames: an odd frame joins the first chunk."""
    first = min(latent_frames, LATENT_FRAMES_PER_CHUNK + latent_frames % LATENT_FRAMES_PER_CHUNK)
    starts = range(first, latent_frames, LATENT_FRAMES_PER_CHUNK)
    return [(0, first), *((start, start + LATENT_FRAMES_PER_CHUNK) for start in starts)]


def to_uint8(x: Tensor) -> Tensor:
    """Decoder output in [-1, 1] to 0..255, in float32, cut and not rounded, as published."""
    return ((x.float() + 1) / 2).clamp(0, 1).mul(255).to(torch.uint8)


class VideoDecoder:
    """diffusers' `AutoencoderKLCogVideoX` as a stream of frames."""

    def __init__(self, autoencoder: Any):
        self.autoencoder = autoencoder

    @property
    def device(self) -> torch.device:
        return self.autoencoder.device

    @torch.inference_mode()
    def decode(self, latents: Tensor) -> Iterator[Tensor]:
        """Decode one clip.

        Args:
            latents: `[T, H, W, C]` as sampled (scaled), any floating dtype.

        Yields:
            uint8 `[frames, 8 H, 8 W, 3]` on the decoder's device: first 9 frames (or 1), then 8 each.
        """
        vae = self.autoencoder
        z = latents.to(vae.device, vae.dtype) / vae.config.scaling_factor
        z = z.permute(3, 0, 1, 2)[None]  # [1, C, T, H, W]
        cache = None
        for start, stop in chunk_bounds(z.shape[2]):
            frames, cache = vae.decoder(z[:, :, start:stop], conv_cache=cache)
            yield to_uint8(frames[0].permute(1, 2, 3, 0))


def load_vae(folder: Path, *, device: torch.device, dtype: torch.dtype, progress: bool = False) -> VideoDecoder:
    """The VAE straight to `device` in `dtype`.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    from diffusers import AutoencoderKLCogVideoX

    config = read_config(folder, "_class_name", "AutoencoderKLCogVideoX")
    checkpoint = open_checkpoint(folder)
    with torch.device("meta"):
        vae = AutoencoderKLCogVideoX.from_config(config)
    assert isinstance(vae, AutoencoderKLCogVideoX)
    load_weights(vae, checkpoint, device=device, dtype=dtype, progress=progress)
    return VideoDecoder(vae)
