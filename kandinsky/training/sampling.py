"""Samples of a batch of clips at once, from noise that is given: by the four-step sampler, or by many steps of DDIM.

The pipeline makes one clip at a time through `sampler.sample`; training and evaluation want many. The formulas are
shared.
Legend: see `velocity`.
"""

from itertools import pairwise

import torch
from torch import Tensor

from kandinsky.model.dit import DiT
from kandinsky.sampler import predict_x0, renoise
from kandinsky.training.levels import Levels
from kandinsky.training.velocity import velocity


def sample_from(dit: DiT, levels: Levels, noises: Tensor, text: Tensor) -> Tensor:
    """A batch by the renoising sampler, `[clips, T, H, W, C]`; noise of each step is given, as training draws it."""
    latents = torch.zeros_like(noises[0])
    for time, alpha, noise in zip(levels.schedule.timesteps, levels.schedule.alphas_cumprod, noises, strict=True):
        noisy = renoise(latents, noise, alpha)
        times = torch.full((len(latents),), time, device=latents.device)
        latents = predict_x0(noisy, velocity(dit, noisy, text, times).type_as(noisy), alpha)
    return latents


def ddim(dit: DiT, levels: Levels, noise: Tensor, text: Tensor) -> Tensor:
    """A batch by deterministic DDIM (arXiv 2010.02502) over the schedule of `levels`, from `noise [clips, T, H, W,
    C]`."""
    latents, schedule = noise, levels.schedule
    alphas = (*schedule.alphas_cumprod, 1.0)
    for time, (alpha, following) in zip(schedule.timesteps, pairwise(alphas), strict=True):
        times = torch.full((len(latents),), time, device=latents.device)
        predicted = velocity(dit, latents, text, times).type_as(latents)
        clean = predict_x0(latents, predicted, alpha)
        remaining = alpha**0.5 * predicted + (1 - alpha) ** 0.5 * latents  # the noise that it sees
        latents = renoise(clean, remaining, following)
    return latents
