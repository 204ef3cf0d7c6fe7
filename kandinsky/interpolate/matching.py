"""Where the surroundings of each pixel of the frame in between are found in both frames: block matching, no weights.

Both frames are first moved along the flow that is known so far. Then the second one is shifted by up to `REACH` pixels
each way, and the shift at which it is most like the first one is added to the flow: the mean of all shifts, weighted by
a softmax of their likeness, so that blocks that fit nowhere better stay where they are. What is compared is brightness
less its mean nearby, so that light may change. It is the search of ffmpeg's
`minterpolate` (both frames seen from the one in between) in the coarse-to-fine form of PWC-Net (arXiv 1709.02371).

Nothing here is trained, and no gradient goes through it but that of the flow.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.interpolate.warp import warped

REACH = 3
SIDE = 2 * REACH + 1
PLACES = SIDE * SIDE
"""Shifts that are tried."""
CELL = 4
"""Pixels between the centres of blocks; a block is three times as wide."""
TEMPERATURE = 0.004
"""Mean difference of brightness, of 1, that makes a shift e times less likely."""
NEARBY = 13
"""Pixels of each side of the square whose mean brightness does not count."""
RELUCTANCE = 0.002
"""What a shift by one pixel must gain, so that flat surfaces stay."""
SCALE = 20.0
"""Brings differences to about 1 for the network."""


def matched(first: Tensor, second: Tensor, state: Tensor, time: Tensor) -> tuple[Tensor, Tensor]:
    """A flow corrected by matching.

    Args:
        first: `[B, 3, H, W]` in 0..1; H and W are multiples of `CELL`.
        second: the same.
        state: flow and mask `[B, 5, H, W]`.
        time: `[B, 1, 1, 1]`, of the frame in between.

    Returns:
        The corrected state, and what the search found: differences at all shifts, and the shift (x, y) in pixels
        between the two frames, `[B, PLACES + 2, H / CELL, W / CELL]`.
    """
    with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
        differences = differences_of(*(details(frames) for frames in warped(first, second, state)))
        shift = best_shift(differences)
        moved = F.interpolate(shift, scale_factor=CELL, mode="bilinear", align_corners=False)
        flow = torch.cat((-time * moved, (1 - time) * moved, torch.zeros_like(moved[:, :1])), dim=1)
        found = torch.cat((differences * SCALE, shift), dim=1)
    return state + flow, found


def details(frames: Tensor) -> Tensor:
    """Brightness of frames `[B, 3, H, W]` less its mean nearby, `[B, 1, H, W]`."""
    grey = frames.mean(1, keepdim=True)
    return grey - F.avg_pool2d(grey, NEARBY, 1, NEARBY // 2, count_include_pad=False)


def differences_of(first: Tensor, second: Tensor) -> Tensor:
    """Mean differences of blocks of grey frames `[B, 1, H, W]`: `[B, PLACES, H / CELL, W / CELL]`, places by rows."""
    height, width = first.shape[2:]
    around = F.pad(second, (REACH,) * 4, mode="replicate")
    shifted = around.unfold(2, height, 1).unfold(3, width, 1)  # [B, 1, SIDE, SIDE, H, W], not copied
    each = (first[:, :, None, None] - shifted).abs_().flatten(1, 3)
    cells = F.avg_pool2d(each, CELL)
    return F.avg_pool2d(cells, 3, 1, 1, count_include_pad=False)


def best_shift(differences: Tensor) -> Tensor:
    """The likeliest shift (x, y) of each cell in pixels, `[B, 2, h, w]`, smoothed over its neighbours."""
    line = torch.arange(-REACH, REACH + 1, dtype=torch.float32, device=differences.device)
    shifts = torch.stack((line.repeat(SIDE), line.repeat_interleave(SIDE)), dim=1)  # [PLACES, 2]
    cost = differences + RELUCTANCE * shifts.norm(dim=1).view(1, -1, 1, 1)
    likely = (-cost / TEMPERATURE).softmax(dim=1)
    shift = torch.einsum("bphw,pc->bchw", likely, shifts)
    return F.avg_pool2d(shift, 3, 1, 1, count_include_pad=False)
