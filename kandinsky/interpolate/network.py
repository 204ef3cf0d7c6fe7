"""Two frames to a frame between them: flow from coarse to fine, warps, and a choice among them for each pixel.

Source: intermediate flow after RIFE (arXiv 2011.06294); flow and warps at each level's own resolution after PWC-Net
(arXiv 1709.02371). Other than both, a pixel may also take the frames as they are, so that what does not move is their
average, which an untrained network gives everywhere.

Legend: frames are [B, 3, H, W] in 0..1; flow is [B, 4, H, W] in pixels of its level, from the frame in between to the
first frame (x, y) and to the second one (x, y); t is [B], 0 at the first frame and 1 at the second.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTHS = (144, 128, 96, 72)
"""Channels of each level, from the coarsest to the finest."""
MULTIPLE = 32
"""Height and width must be multiples of it: the coarsest level works at a 32nd of the resolution."""


class Between(NamedTuple):
    """A frame in between `[B, 3, H, W]`, and flow and mask `[B, 5, h, w]` after each level, coarsest first."""

    frame: Tensor
    states: list[Tensor]


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """`frames` `[B, C, H, W]` as seen along `flow` `[B, 2, H, W]` in pixels; in float32, edges repeated."""
    height, width = frames.shape[2:]
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=flow.device, dtype=torch.float32)
    flow = flow.float()
    grid = torch.stack(((x + flow[:, 0]) * (2 / (width - 1)) - 1, (y + flow[:, 1]) * (2 / (height - 1)) - 1), dim=-1)
    return F.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)


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
    """Corrects flow and mask at one resolution; works at a quarter of it. It begins with no correction."""

    def __init__(self, width: int, blocks: int = 3):
        super().__init__()
        self.down = nn.Sequential(convolution(18, width // 2, 2), convolution(width // 2, width, 2))
        self.body = nn.Sequential(*(Residual(width) for _ in range(blocks)))
        self.up = nn.ConvTranspose2d(width, 4 * 5, 4, 2, 1)
        nn.init.zeros_(self.up.weight)
        if self.up.bias is not None:
            nn.init.zeros_(self.up.bias)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 18, H, W]` to `[B, 5, H, W]`: corrections of the flow and of the mask."""
        return F.pixel_shuffle(self.up(self.body(self.down(x))), 2).float()


class Choice(nn.Module):
    """Weights of the four candidates, and a correction of their sum, at full resolution. It begins with neither."""

    def __init__(self, width: int = 32):
        super().__init__()
        self.enter = convolution(18, width)
        self.inner = nn.Sequential(convolution(width, 2 * width, 2), Residual(2 * width), Residual(2 * width))
        self.up = nn.ConvTranspose2d(2 * width, width, 4, 2, 1)
        self.leave = nn.Sequential(convolution(width, width), nn.Conv2d(width, 7, 3, 1, 1))
        nn.init.zeros_(self.leave[1].weight)  # type: ignore[arg-type]  # a Sequential does not tell what it holds
        nn.init.zeros_(self.leave[1].bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 18, H, W]` to `[B, 7, H, W]`: logits of the four, and a correction of the colours."""
        entered = self.enter(x)
        return self.leave(entered + self.up(self.inner(entered))).float()


class FlowNetwork(nn.Module):
    """Makes a frame between two, at any time between them."""

    def __init__(self) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(width) for width in WIDTHS)
        self.choice = Choice()

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights, in which convolutions run; warps and mixing are in float32."""
        return self.levels[0].up.weight.dtype  # type: ignore[union-attr, return-value]  # a ModuleList does not tell

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
            state = state + level(self._planes(a, b, warped(a, b, state), state, time))
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


def warped(first: Tensor, second: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames, each moved to the time in between."""
    return warp(first, state[:, :2]), warp(second, state[:, 2:4])


def prior(time: Tensor) -> Tensor:
    """Logits `[B, 2, 1, 1]` of the two frames at `time` `[B, 1, 1, 1]`: the nearer one counts more."""
    return torch.cat(((1 - time).log(), time.log()), dim=1)


def mask_logits(state: Tensor, time: Tensor) -> Tensor:
    """Logits `[B, 2, H, W]` of the two moved frames."""
    return prior(time) + torch.cat((state[:, 4:], -state[:, 4:]), dim=1) / 2


def mix(weights: Tensor, candidates: Sequence[Tensor]) -> Tensor:
    """The sum of candidates `[B, 3, H, W]` with `weights` `[B, len(candidates), H, W]`."""
    return torch.stack([weights[:, i : i + 1] * each for i, each in enumerate(candidates)]).sum(dim=0)
