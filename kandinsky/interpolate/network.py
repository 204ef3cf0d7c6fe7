"""Two frames to a frame between them: flow from coarse to fine, warps, and a choice among them for each pixel.

Source: intermediate flow after RIFE (arXiv 2011.06294); flow and warps at each level's own resolution after PWC-Net
(arXiv 1709.02371). Other than RIFE, each level but the finest first looks for the best match without any weights (see
`matching`), so that an untrained network follows what moves; and a pixel may also take the frames as they are, so that
what does not move is their average.

Legend: frames are [B, 3, H, W] in 0..1; flow is [B, 4, H, W] in pixels of its level, from the frame in between to the
first frame (x, y) and to the second one (x, y); t is [B], 0 at the first frame and 1 at the second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.interpolate.matching import CELL, PLACES, matched
from kandinsky.interpolate.warp import warped

WIDTHS = (112, 112, 96, 80)
"""Channels of each level, from the coarsest to the finest."""
MULTIPLE = 32
"""Height and width must be multiples of it: the coarsest level works at a 32nd of the resolution."""


class Between(NamedTuple):
    """A frame in between `[B, 3, H, W]`, and flow and mask `[B, 5, h, w]` after each level, coarsest first."""

    frame: Tensor
    states: list[Tensor]


def convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution and its activation."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1), nn.LeakyReLU(0.2))


class Residual(nn.Module):
    """Two convolutions beside the identity."""

    def __init__(self, width: int):
        super().__init__()
        self.first = convolution(width, width)
        self.second = nn.Conv2d(width, width, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.leaky_relu(x + self.second(self.first(x)), 0.2)


class Level(nn.Module):
    """Corrects flow and mask at one resolution, smoothly: it works at a quarter of it. It begins with no correction.

    Corrections for each pixel by itself were tried: where the flow is hard to find, neighbours went apart into dots.
    """

    def __init__(self, width: int, *, matches: bool, blocks: int = 3):
        super().__init__()
        self.down = nn.Sequential(convolution(18, width // 2, 2), convolution(width // 2, width, 2))
        self.match = nn.Conv2d(PLACES + 2, width, 3, 1, 1) if matches else None
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.leave = nn.Conv2d(width, 5, 3, 1, 1)
        zero(self.leave)

    def forward(self, x: Tensor, match: Tensor | None) -> Tensor:
        """`[B, 18, H, W]`, and what matching found or None, to corrections of flow and mask `[B, 5, H, W]`."""
        inner = self.down(x)
        if self.match is not None and match is not None:
            inner = inner + self.match(match.to(inner.dtype))
        corrections = self.leave(self.body(inner)).float()
        return F.interpolate(corrections, scale_factor=CELL, mode="bilinear", align_corners=False)


class Choice(nn.Module):
    """Weights of the four candidates, and a correction of their sum, at full resolution. It begins with neither."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.enter = convolution(18, width)
        self.coarse = nn.Sequential(convolution(width, 2 * width, 2), Residual(2 * width))
        self.coarser = nn.Sequential(convolution(2 * width, 3 * width, 2), Residual(3 * width), Residual(3 * width))
        self.to_half = nn.ConvTranspose2d(3 * width, 2 * width, 4, 2, 1)
        self.to_whole = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.inner = convolution(width, width)
        self.leave = nn.Conv2d(width, 7, 3, 1, 1)
        zero(self.leave)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 18, H, W]` to `[B, 7, H, W]`: logits of the four, and a correction of the colours."""
        whole = self.enter(x)
        half = self.coarse(whole)
        half = half + self.to_half(self.coarser(half))
        return self.leave(self.inner(whole + self.to_whole(half))).float()


def zero(layer: nn.Conv2d) -> None:
    """Make a layer give zeros."""
    nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class FlowNetwork(nn.Module):
    """Makes a frame between two, at any time between them."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(width, matches=width != WIDTHS[-1]) for width in WIDTHS)
        self.choice = Choice()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which convolutions run; warps and mixing are in float32."""
        return self.levels[0].leave.weight.dtype  # type: ignore[union-attr, return-value]  # a ModuleList does not tell

    def forward(self, first: Tensor, second: Tensor, t: Tensor) -> Between:
        """`first` and `second` `[B, 3, H, W]` in 0..1, H and W multiples of `MULTIPLE`; `t` `[B]` between 0 and 1."""
        frames = pyramid(first.float(), second.float(), len(self.levels))
        time = t.float().view(-1, 1, 1, 1)
        state = frames[0][0].new_zeros((len(first), 5, *frames[0][0].shape[2:]))
        states: list[Tensor] = []
        for level, (a, b) in zip(self.levels, frames, strict=True):
            if states:
                state = F.interpolate(state, scale_factor=2, mode="bilinear", align_corners=False)
                state = torch.cat((state[:, :4] * 2, state[:, 4:]), dim=1)
            match = None
            if len(states) < len(self.levels) - 1:
                state, match = matched(a, b, state, time)
            state = state + level(self._planes(a, b, warped(a, b, state), state, time), match)
            states.append(state)
        a, b = frames[-1]
        moved = warped(a, b, state)
        chosen = self.choice(self._planes(a, b, moved, state, time))
        still = prior(time).expand_as(chosen[:, :2])
        weights = (chosen[:, :4] + torch.cat((mask_logits(state, time), still), dim=1)).softmax(dim=1)
        frame = mix(weights, (*moved, a, b)) + chosen[:, 4:]
        return Between(frame, states)

    def _planes(self, a: Tensor, b: Tensor, moved: tuple[Tensor, Tensor], state: Tensor, time: Tensor) -> Tensor:
        """What a level looks at, `[B, 18, H, W]`."""
        planes = (a, b, *moved, state / 16, time.expand(-1, 1, *a.shape[2:]))
        return torch.cat([plane.to(self.dtype) for plane in planes], dim=1)


def pyramid(first: Tensor, second: Tensor, levels: int) -> list[tuple[Tensor, Tensor]]:
    """Both frames at each level's resolution, the coarsest first."""
    frames = [(first, second)]
    for _ in range(levels - 1):
        frames.insert(0, (F.avg_pool2d(frames[0][0], 2), F.avg_pool2d(frames[0][1], 2)))
    return frames


def prior(time: Tensor) -> Tensor:
    """Logits `[B, 2, 1, 1]` of the two frames at `time` `[B, 1, 1, 1]`: the nearer one counts more."""
    return torch.cat(((1 - time).log(), time.log()), dim=1)


def mask_logits(state: Tensor, time: Tensor) -> Tensor:
    """Logits `[B, 2, H, W]` of the two moved frames."""
    return prior(time) + torch.cat((state[:, 4:], -state[:, 4:]), dim=1) / 2


def mix(weights: Tensor, candidates: Sequence[Tensor]) -> Tensor:
    """The sum of candidates `[B, 3, H, W]` with `weights` `[B, len(candidates), H, W]`."""
    return torch.stack([weights[:, i : i + 1] * each for i, each in enumerate(candidates)]).sum(dim=0)
