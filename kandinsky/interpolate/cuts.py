"""Where one scene ends and another begins: nothing lies between their frames, so one of them is held.

Two frames belong to different scenes if small pictures of them differ much in brightness and are not alike in shape
either: a flash changes the one, a fast movement the other. The limits lie between what was measured on videos of the
model (neighbours differ by at most 0.02, frames 3 apart by 0.04; frames of different videos by 0.20 and more).
"""

import torch.nn.functional as F
from torch import Tensor

SIDE = 24
"""Pixels of each side of the small pictures."""
DIFFERENCE, LIKENESS = 0.06, 0.6


def are_cuts(first: Tensor, second: Tensor) -> Tensor:
    """Whether a scene ends between frames `[B, 3, H, W]` in 0..1 and the next ones: bool `[B]`, on their device."""
    a, b = (F.adaptive_avg_pool2d(frames.float(), SIDE) for frames in (first, second))
    difference = (a - b).abs().mean((1, 2, 3))
    a, b = (small.mean(1).flatten(1) for small in (a, b))  # grey, [B, SIDE * SIDE]
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    likeness = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-6)
    return (difference > DIFFERENCE) & (likeness < LIKENESS)
