"""The manners of putting in what is known that were tried; what calls do is `last, toned`.

Legend: T, H, W latents
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor

from kandinsky.known.latents import Known
from kandinsky.sampler import draw_noise, predict_x0, renoise

MANNERS: Mapping[str, tuple[str, bool]] = MappingProxyType(
    {
        "hard": ("own", False),
        "ahead": ("ahead", False),
        "last": ("last", False),
        "toned": ("ahead", True),
        "last, toned": ("last", True),
        "none": ("none", False),
        "repeated": ("own", False),
        "soft": ("own", False),
    }
)
"""How what is known is noised, and whether the rest gets its tone (`known.Known`). `repeated`: hard, and every step but
the first once more after noising to the same level (RePaint, arXiv 2201.09865). `soft`: hard, and before the second
step latent frames beside known ones are drawn to them, by `SOFT` and less the farther they are."""
SOFT = 0.5


def sample_repeated(
    velocity: Callable[[Tensor, int], Tensor], known: Known, alphas: Sequence[float], seed: int
) -> Tensor:
    """The four steps with known latents put in hard, each but the first done once more after noising to its level."""
    generator, mask = torch.Generator().manual_seed(seed), known.mask[..., None]
    given = known.latents.double()
    latents = torch.zeros_like(given)
    draw_noise(tuple(given.shape), generator)
    for index, alpha in enumerate(alphas):
        for _ in range(1 if index == 0 else 2):
            noise = draw_noise(tuple(given.shape), generator).to(given.device).double()
            noised = renoise(torch.where(mask, given, latents), noise, alpha)
            latents = predict_x0(noised, velocity(noised, index).double(), alpha)
    return torch.where(mask, given, latents)


def soften(known: Known, index: int, latents: Tensor) -> Tensor | None:
    """Between the first and the second step latents are drawn to what is known."""
    return drawn_to(known, latents) if index == 0 else None


def drawn_to(known: Known, latents: Tensor) -> Tensor:
    """Latents whose frames beside known ones are drawn to them."""
    frames = known.mask.flatten(1).all(1).nonzero()[:, 0]
    places = torch.arange(len(latents), device=latents.device)
    distance, nearest = (places[:, None] - frames).abs().min(1)
    weight = (SOFT ** distance.double())[:, None, None, None]
    return latents.lerp(known.latents.to(latents.dtype)[frames[nearest]], weight)
