"""Three-axis rotary position embedding (RoFormer, arXiv 2104.09864) over the visual token grid.

Adjacent channels (2i, 2i + 1) of a head turn by angle i; the angles of the time, height and width axes are
concatenated. Text tokens have no position: their rows of the table turn by zero.
"""

import math

import torch
from torch import Tensor, nn

from kandinsky.model.layout import Clip, TokenLayout

MAX_POSITIONS = 128


class RoPE3D(nn.Module):
    """Angle tables `args_{0,1,2}: [128, axis_dim / 2]`, kept as buffers because checkpoints hold them."""

    def __init__(self, axes_dims: tuple[int, int, int]):
        super().__init__()
        for axis, dim in enumerate(axes_dims):
            self.register_buffer(f"args_{axis}", axis_angles(dim).to(torch.get_default_device()))

    def forward(self, layout: TokenLayout) -> Tensor:
        """Table of `(cos, sin)`, float32 `[tokens, head_dim / 2, 2]`, for every row of the stream."""
        angles = torch.cat([self._clip_angles(clip, layout.scale_factor) for clip in layout.clips])
        return torch.stack((angles.cos(), angles.sin()), dim=-1)

    def _clip_angles(self, clip: Clip, scale_factor: tuple[float, float, float]) -> Tensor:
        frames, rows, columns = clip.grid
        axes = []
        for axis, (size, scale) in enumerate(zip(clip.grid, scale_factor, strict=True)):
            if size > MAX_POSITIONS:
                raise ValueError(f"token grid {clip.grid}: RoPE holds {MAX_POSITIONS} positions an axis")
            shape = [1, 1, 1, -1]
            shape[axis] = size
            angles = self.get_buffer(f"args_{axis}")[:size].float() / scale
            axes.append(angles.view(shape).expand(frames, rows, columns, -1))
        visual = torch.cat(axes, dim=-1).flatten(0, 2)  # [visual_tokens, head_dim / 2]
        return torch.cat((visual, visual.new_zeros(clip.text_tokens, visual.shape[-1])))


def axis_angles(dim: int) -> Tensor:
    """position x exp(-ln(10000) k / (dim / 2)), float32 `[128, dim / 2]`, on the CPU.

    For arithmetic on the meta device, where models are built, PyTorch first imports sympy: two seconds.
    """
    half = dim // 2
    numbers, positions = (torch.arange(count, dtype=torch.float32, device="cpu") for count in (half, MAX_POSITIONS))
    return torch.outer(positions, torch.exp(-math.log(10_000) * numbers / half))


def rotate(x: Tensor, rope: Tensor, *, scale: float = 1.0) -> Tensor:
    """Turn `x: [tokens, heads, head_dim]` by `rope: [tokens, head_dim / 2, 2]` and scale it, in float32."""
    # A pair of channels as a complex number times (cos + i sin): one pass instead of six.
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * torch.view_as_complex(rope * scale)[:, None]).flatten(-2).type_as(x)
