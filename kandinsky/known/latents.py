"""Given pixels to known latents and a mask: what the sampler takes.

A latent frame covers one pixel frame if it is the first, else four, and the encoder is causal: it sees nothing later.
So a picture is latent frame 0 exactly, and the first 1 + 4 k frames of a clip are its first 1 + k latent frames.

Legend: T, H, W the latent grid; C channels; F pixel frames, F = 4 (T - 1) + 1.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.known.given import Given, first_step
from kandinsky.sampler import NOISED

Encode = Callable[[Tensor], Tensor]
"""Clip uint8 [4 n + 1, height, width, 3] -> scaled latents [n + 1, H, W, C]."""
BORDER = 1
"""Latents around what is made anew that are made anew too: a latent beside the border knows pixels from across it."""
STILL_FRAMES = 9
"""Of a picture that is encoded as a later latent frame: the encoder sees it stand still; the last latent is taken."""
CELL = 8
"""Pixels of a latent's side."""
RATE = 4
"""Pixel frames of a latent frame, except for the first one's."""


@dataclass(frozen=True, eq=False)
class Known:
    """What a sample holds or begins with; see `sampler.Known`.

    Args:
        latents: `[T, H, W, C]`, scaled, on any device.
        mask: bool `[T, H, W]`: where the result is `latents`.
        first: index of the timestep that the run begins with.
        noised: one of `sampler.NOISED`; which follows best is in docs/training.md.
        toned: whether the rest gets the tone of what is known.

    Raises:
        ValueError: sizes or dtypes do not go together.
    """

    latents: Tensor
    mask: Tensor
    first: int = 0
    noised: str = "last"
    toned: bool = True

    def __post_init__(self) -> None:
        grid = self.latents.shape[:-1]
        if self.latents.ndim != 4 or self.mask.dtype != torch.bool or self.mask.shape != grid or self.first < 0:
            found = f"latents {list(self.latents.shape)}, mask {self.mask.dtype} {list(self.mask.shape)}, {self.first}"
            raise ValueError(f"known is {found}; allowed: latents [T, H, W, C], a bool mask [T, H, W], a first step")
        if self.noised not in NOISED:
            raise ValueError(f"noised={self.noised!r}: allowed are {', '.join(NOISED)}")


def known_of(given: Given, encode: Encode, grid: tuple[int, int, int], *, steps: int) -> Known:
    """Encode what is given.

    Args:
        encode: of the VAE.
        grid: `[T, H, W]` of the sample.
        steps: of the schedule.
    """
    clip = given.head if given.head is not None else given.video
    begins = None if clip is None else encode(clip)
    ends = None
    if given.last is not None:
        ends = encode(given.last.expand(STILL_FRAMES if grid[0] > 1 else 1, -1, -1, -1))[-1:]
    some = begins if begins is not None else ends
    assert some is not None
    latents = some.new_zeros(*grid, some.shape[-1])
    mask = torch.zeros(grid, dtype=torch.bool, device=some.device)
    if begins is not None:
        latents[: len(begins)] = begins
        mask[: len(begins)] = given.video is None or given.anew is not None
    if given.anew is not None:
        mask &= ~latent_mask(given.anew).to(mask.device)
    if ends is not None:
        latents[-1:], mask[-1:] = ends, True
    return Known(latents, mask, 0 if given.video is None else first_step(given.strength, steps))


def latent_mask(anew: Tensor) -> Tensor:
    """Bool `[F, height, width]` to bool `[T, H, W]`: a latent is made anew if a pixel of it is, and `BORDER` around."""
    cells = F.max_pool2d(anew[:, None].float(), CELL)[:, 0]  # [F, H, W]
    later = cells[1:].unflatten(0, (-1, RATE)).amax(1) if len(cells) > 1 else cells[1:]
    latents = torch.cat((cells[:1], later))  # [T, H, W]
    return F.max_pool2d(latents[:, None], 2 * BORDER + 1, stride=1, padding=BORDER)[:, 0] > 0
