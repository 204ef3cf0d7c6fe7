"""What a student is given of a clip while it is trained: latents that a call can know before sampling.

A first frame (`image`), a last one (`last_image`), both, the beginning (`extend`), or all but a rectangle (`mask`).
What is given is put in without noise, the rest is noised as ever; the student's inputs and its one timestep stay.

Legend: T, H, W latents
"""

import torch
from torch import Tensor

KINDS = 5
"""First, last, both, beginning, all but a rectangle: each as often as the others."""


def draw_known(shape: tuple[int, ...], share: float, generator: torch.Generator) -> Tensor:
    """Which latents are given, bool `[clips, T, H, W]`.

    Args:
        shape: of the batch, clips, T, H, W first. Clips of one latent frame are given all but a rectangle or nothing.
        share: of the clips that are given something, on average, from 0 (and the generator is left alone) to 1.
    """
    clips, frames, height, width = shape[:4]
    device = generator.device
    if not share:
        return torch.zeros(shape[:4], dtype=torch.bool, device=device)
    chance = torch.rand((7, clips), generator=generator, device=device)
    kind = (chance[0] * KINDS).long() if frames > 1 else torch.full((clips,), KINDS - 1, device=device)
    most = torch.where(kind == 3, frames - 1, 1)  # a beginning leaves a frame to be made
    length = (chance[1] * most).long() + 1
    places = torch.arange(frames, device=device)
    begins = (places < length[:, None]) & ((kind != 1) & (kind != 4))[:, None]
    ends = (places == frames - 1) & ((kind == 1) | (kind == 2))[:, None]
    down = _span(chance[2], chance[3], height)
    across = _span(chance[4], chance[5], width)
    rest = ~(down[:, :, None] & across[:, None]) & (kind == 4)[:, None, None]  # [clips, H, W]
    known = (begins | ends)[:, :, None, None] | rest[:, None]
    return known & (chance[6] < share)[:, None, None, None]


def _span(start: Tensor, length: Tensor, size: int) -> Tensor:
    """Of `size` places those of a random span of at least a quarter, bool `[clips, size]`."""
    count = ((0.25 + 0.75 * length) * size).ceil()
    begin = (start * (size - count + 1)).floor()
    places = torch.arange(size, device=start.device)
    return (places >= begin[:, None]) & (places < (begin + count)[:, None])


def put_in(known: Tensor, clean: Tensor, latents: Tensor) -> Tensor:
    """`latents [clips, T, H, W, C]` with `clean` in place of those that `known [clips, T, H, W]` names."""
    return torch.where(known[..., None], clean, latents)
