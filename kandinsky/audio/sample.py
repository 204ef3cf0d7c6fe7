"""Noise to a spectrogram picture: the sampler's steps with guidance, and the decoder.

The sampler is diffusers' PNDMScheduler, as published with the weights (pseudo-linear multistep, arXiv 2202.09778). It
keeps its own values between steps, so each call of `sample` makes a new one.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from kandinsky.audio.unet import velocity

HEIGHT = 64
"""Of the latents: 512 bands in 8ths."""
CHANNELS = 4
COMPRESSION = 8
"""Of the picture in each direction."""
OnLatents = Callable[[int, Tensor], Tensor | None]
"""(index of the step, latents) -> latents to go on with, or None for the same."""


def make_scheduler(config: Mapping[str, Any], steps: int) -> Any:
    """A scheduler that was asked for `steps` steps; its `timesteps` are one more, since the first is taken twice."""
    from diffusers import PNDMScheduler

    scheduler = PNDMScheduler.from_config(dict(config))
    assert isinstance(scheduler, PNDMScheduler)
    scheduler.set_timesteps(steps)
    return scheduler


def first_noise(width: int, generator: torch.Generator) -> Tensor:
    """`[1, 4, 64, width]` on the generator's device, float32."""
    return torch.randn(1, CHANNELS, HEIGHT, width, generator=generator, device=generator.device)


def sample(
    unet: Any,
    scheduler: Any,
    noise: Tensor,
    *,
    text: Tensor,
    video: Tensor,
    guidance_scale: float,
    on_step: OnLatents | None = None,
) -> Tensor:
    """Latents `[1, 4, H, W]`, float32 on the UNet's device.

    Args:
        scheduler: of `make_scheduler`, not used before.
        noise: `[1, 4, H, W]`.
        text, video: `[2, T, E]` and `[2, F, E]`, the negative half first; or of one row, without guidance.
        guidance_scale: how far the result goes from the negative half towards the positive one and beyond.
        on_step: called after each step.
    """
    device, halves = unet.device, len(text)
    text, video = text.to(device), video.to(device)
    latents = noise.to(device) * scheduler.init_noise_sigma
    for index, timestep in enumerate(scheduler.timesteps):
        model_input = scheduler.scale_model_input(latents.repeat(halves, 1, 1, 1), timestep)
        predicted = velocity(unet, model_input, timestep, text=text, video=video)
        if halves == 2:
            negative, positive = predicted.chunk(2)
            predicted = negative + guidance_scale * (positive - negative)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        if on_step is not None and (replaced := on_step(index, latents)) is not None:
            latents = replaced
    return latents


def decode(vae: Any, latents: Tensor) -> Tensor:
    """The picture of latents `[1, 4, H, W]`: uint8 `[8 H, 8 W, 3]` on the CPU.

    Args:
        vae: diffusers' AutoencoderKL.
    """
    pixels = vae.decode(latents.to(vae.device, vae.dtype) / vae.config.scaling_factor, return_dict=False)[0]
    pixels = (pixels[0].float() / 2 + 0.5).clamp(0, 1)  # [3, 8 H, 8 W]
    return (pixels.permute(1, 2, 0).cpu() * 255).round().byte()
