"""How far frames are from what they should be.

Errors count twice: as they are, so that what moves teaches flow, and by their logarithm for each triplet, so that calm
ones, whose errors are small, keep the average. With the logarithm alone flow was learned slowly. Laplacian pyramids
after Niklaus and Liu (arXiv 1803.10967).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.interpolate.network import Between, mask_logits, mix, pyramid
from kandinsky.interpolate.warp import warped
from kandinsky.training.motion.synthesis import Triplets

DEPTH = 5
FADE = 0.6
"""Weight of a level of the flow beside the next finer one."""
PLAIN = 20.0
"""Weight of errors as they are, beside their logarithm."""
FLOOR = 2e-6
"""Squared error from which on nothing is gained: 57 dB."""


def laplacian(x: Tensor) -> list[Tensor]:
    """Bands of `[B, C, H, W]`, the finest first, and what is left."""
    bands = []
    for _ in range(DEPTH):
        low = F.avg_pool2d(x, 2)
        bands.append(x - F.interpolate(low, scale_factor=2, mode="bilinear", align_corners=False))
        x = low
    return [*bands, x]


def pyramid_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute differences of the bands, each with twice the weight of the finer one, `[B]`."""
    pairs = zip(laplacian(made), laplacian(wanted), strict=True)
    return torch.stack([2**index * (a - b).abs().mean((1, 2, 3)) for index, (a, b) in enumerate(pairs)]).sum(0)


def loss(between: Between, triplets: Triplets) -> tuple[Tensor, Tensor]:
    """The loss, and the mean PSNR in dB of the frames."""
    wanted = triplets.middle
    squares = (between.frame - wanted).square().mean((1, 2, 3))
    distance = pyramid_distance(between.frame, wanted)
    total = (0.5 * (squares + FLOOR).log() + 0.25 * (distance + 2e-3).log() + PLAIN * distance).mean()
    time = triplets.t.view(-1, 1, 1, 1)
    frames = pyramid(triplets.first, triplets.second, len(between.states))
    targets = [wanted for wanted, _ in pyramid(wanted, wanted, len(between.states))]
    for index, (state, (a, b), target) in enumerate(zip(between.states, frames, targets, strict=True)):
        blend = mix(mask_logits(state, time).softmax(dim=1), warped(a, b, state))
        weight = FADE ** (len(between.states) - index)
        total = total + weight * PLAIN * band_distance(blend, target).mean()
    return total, -10 * squares.detach().clamp_min(1e-9).log10().mean()


def band_distance(made: Tensor, wanted: Tensor) -> Tensor:
    """Absolute differences at three resolutions, `[B]`: coarse levels are too small for all bands."""
    total = (made - wanted).abs().mean((1, 2, 3))
    for size in (2, 4):
        total = total + size * F.avg_pool2d(made - wanted, size).abs().mean((1, 2, 3))
    return total
