"""What the tests of the VAE share."""

import torch
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor

from kandinsky.vae.activation import Time
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.stream import chunk_bounds

RATIOS = [1, 2, 4, 8]
FULL_CHANNELS = (128, 256, 256, 512)
LAYOUTS = [
    (Time.NATURAL, False, 4, 4),
    (Time.NATURAL, True, 5, 5),
    (Time.PAIRED, True, 5, 3),
    (Time.PAIRED, True, 8, 4),
    (Time.SPLIT, False, 9, 9),
    (Time.SPLIT, False, 8, 8),
    (Time.PAIRED, True, 1, 1),
    (Time.SPLIT, False, 1, 1),
]
"""Of an activation: time, quarters, frames, stored frames."""


def tiny_autoencoder(**changes) -> AutoencoderKLCogVideoX:
    """Random weights; norms and biases too, which a fresh module has at ones and zeros."""
    torch.manual_seed(0)
    config = {
        "block_out_channels": (32, 32, 32, 32),
        "layers_per_block": 1,
        "norm_num_groups": 16,
        "latent_channels": 16,
        "temporal_compression_ratio": 4,
        "scaling_factor": 0.7,
    }
    autoencoder = AutoencoderKLCogVideoX(**{**config, **changes}).eval().requires_grad_(False)
    for name, value in autoencoder.decoder.named_parameters():
        if name.endswith("bias") or "norm_layer" in name:
            value.add_(torch.randn_like(value), alpha=0.2)
    return autoencoder


def smallest_autoencoder(**changes) -> AutoencoderKLCogVideoX:
    """As `tiny_autoencoder`, in half its channels: for a CPU."""
    return tiny_autoencoder(**{"block_out_channels": (16, 16, 16, 16), "norm_num_groups": 8, **changes})


def latents_of(frames: int, rows: int = 4, columns: int = 6) -> Tensor:
    """[T, rows, columns, 16]"""
    return torch.randn(frames, rows, columns, 16, generator=torch.Generator().manual_seed(frames))


@torch.inference_mode()
def their_frames(autoencoder: AutoencoderKLCogVideoX, z: Tensor) -> Tensor:
    return autoencoder.decode(z.permute(3, 0, 1, 2)[None]).sample[0].permute(1, 2, 3, 0)


def our_frames(decoder: CausalDecoder, z: Tensor, **settings) -> Tensor:
    clip = decoder.open_clip(z, **settings)
    return torch.cat([clip.decode_chunk(z[start:stop]) for start, stop in chunk_bounds(len(z))])
