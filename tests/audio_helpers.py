"""The small V2A model of the golden file, and others like it."""

import json
import zlib
from functools import cache
from typing import Any

import torch
from helpers import golden_folder
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from kandinsky.audio.unet import build_unet

SCHEDULER = {
    "_class_name": "PNDMScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "skip_prk_steps": True,
    "steps_offset": 1,
}
"""As with Stable Diffusion 1."""


@cache
def golden_metadata() -> dict[str, str]:
    with safe_open(golden_folder() / "v2a.safetensors", "pt") as handle:
        return handle.metadata()


@cache
def golden_tensors() -> dict[str, Tensor]:
    return load_file(golden_folder() / "v2a.safetensors")


def golden_config(name: str) -> dict[str, Any]:
    return json.loads(golden_metadata()[f"{name}_config"])


@torch.no_grad()
def draw_(module: nn.Module) -> Any:
    """Every parameter from a generator that its name seeds, as the golden file's were."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(zlib.crc32(name.encode())))
        if parameter.ndim > 1:
            noise /= parameter[0].numel() ** 0.5
        elif "norm" in name and name.endswith("weight"):
            noise = 1 + 0.1 * noise
        else:
            noise *= 0.1
        parameter.copy_(noise)
    return module.requires_grad_(False).eval()


@cache
def golden_unet() -> Any:
    return draw_(build_unet(golden_config("unet")))


@cache
def golden_vae() -> Any:
    from diffusers import AutoencoderKL

    return draw_(AutoencoderKL.from_config(golden_config("vae")))
