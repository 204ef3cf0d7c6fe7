"""Frames as they are seen along a flow.

Legend: frames are [B, C, H, W]; flow is [B, 2, H, W] in pixels, x first.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def warp(frames: Tensor, flow: Tensor) -> Tensor:
    """`frames` `[B, C, H, W]` as seen along `flow` `[B, 2, H, W]` in pixels; in float32, edges repeated."""
    height, width = frames.shape[2:]
    y = torch.arange(height, device=flow.device, dtype=torch.float32)[:, None]
    x = torch.arange(width, device=flow.device, dtype=torch.float32)
    flow = flow.float()
    grid = torch.stack(((x + flow[:, 0]) * (2 / (width - 1)) - 1, (y + flow[:, 1]) * (2 / (height - 1)) - 1), dim=-1)
    return F.grid_sample(frames.float(), grid, mode="bilinear", padding_mode="border", align_corners=True)


def warped(first: Tensor, second: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """Both frames, each moved to the time in between by its half of the flow in `state` `[B, 4 or more, H, W]`."""
    return warp(first, state[:, :2]), warp(second, state[:, 2:4])
