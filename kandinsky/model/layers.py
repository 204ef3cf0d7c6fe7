"""The layers of the DiT; module names are those of the published checkpoint, which therefore loads strictly.

Legend:  tokens, normed: [tokens, model_dim]     qkv: [tokens, 3, heads, head_dim]

Numeric habits of the published code (bfloat16 autocast), kept: Linears in the weights' dtype; LayerNorm, modulation and
RoPE in float32 with one rounding at the end; query and key are rounded after their norm, before RoPE.
Source: MMDiT (arXiv 2403.03206) with weights shared by the two streams, adaLN modulation (arXiv 2212.09748).
"""

import math
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.config import DiTConfig
from kandinsky.model.attention import Attention
from kandinsky.model.context import Context
from kandinsky.model.operations import Gelu, NormRope

if TYPE_CHECKING:
    from kandinsky.model.quantised import Quantised

NORM_EPS = 1e-5


class TimeEmbeddings(nn.Module):
    """Sinusoids of the timestep, then Linear, SiLU, Linear."""

    def __init__(self, model_dim: int, time_dim: int):
        super().__init__()
        self.model_dim = model_dim
        self.in_layer = nn.Linear(model_dim, time_dim)
        self.out_layer = nn.Linear(time_dim, time_dim)

    def forward(self, time: Tensor) -> Tensor:
        """`time: [...]` timesteps of the training schedule (0 to 999) -> `[..., time_dim]`."""
        half = self.model_dim // 2
        frequencies = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device, dtype=torch.float32) / half)
        angles = time.float()[..., None] * frequencies
        sinusoids = torch.cat((angles.cos(), angles.sin()), dim=-1)
        return self.out_layer(F.silu(self.in_layer(sinusoids.type_as(self.in_layer.weight))))


class TextEmbeddings(nn.Module):
    """Text embedder's width to the model's."""

    def __init__(self, in_text_dim: int, model_dim: int):
        super().__init__()
        self.in_layer = nn.Linear(in_text_dim, model_dim)

    def forward(self, text: Tensor) -> Tensor:
        return self.in_layer(text.type_as(self.in_layer.weight))


class VisualEmbeddings(nn.Module):
    """Latents cut into patches, one token each; inside a patch the order is (frame, row, column, channel)."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.in_layer = nn.Linear(math.prod(config.patch_size) * config.in_visual_dim, config.model_dim)

    def forward(self, visual: Tensor) -> Tensor:
        """`visual: [T, H, W, in_visual_dim]` -> `[T / pt * H / ph * W / pw, model_dim]`."""
        pt, ph, pw = self.patch_size
        patches = visual.unflatten(2, (-1, pw)).unflatten(1, (-1, ph)).unflatten(0, (-1, pt))
        patches = patches.permute(0, 2, 4, 1, 3, 5, 6).flatten(3).flatten(0, 2)
        return self.in_layer(patches.type_as(self.in_layer.weight))


class ModulationLayer(nn.Module):
    """Linear of SiLU(time_embed) to shift, scale and gate of attention, then of the feed-forward."""

    def __init__(self, time_dim: int, model_dim: int):
        super().__init__()
        self.out_layer = nn.Linear(time_dim, 6 * model_dim)

    def forward(self, time_embed: Tensor) -> Tensor:
        """`[..., time_dim]` -> `[..., 6, model_dim]`, on time_embed's device; the weights may be on another."""
        modulation = self.out_layer(F.silu(time_embed).to(self.out_layer.weight.device))
        return modulation.unflatten(-1, (6, -1)).to(time_embed.device)


class SelfAttention(nn.Module):
    """Fused QKV projection, LayerNorm over head_dim on queries and keys, RoPE, attention, output projection.

    Local heads are counted, not configured: a rank of a tensor-parallel group holds some of them.
    """

    def __init__(self, model_dim: int, head_dim: int):
        super().__init__()
        self.head_dim = head_dim
        self.to_query_key_value = nn.Linear(model_dim, 3 * model_dim)
        self.query_norm = nn.LayerNorm(head_dim, eps=NORM_EPS)
        self.key_norm = nn.LayerNorm(head_dim, eps=NORM_EPS)
        self.output_layer = nn.Linear(model_dim, model_dim)

    def forward(
        self,
        normed: "Tensor | Quantised",
        context: Context,
        norm_rope: NormRope,
        *,
        attention: Attention,
        dilated: bool,
    ) -> Tensor:
        """`[tokens, model_dim]` to the same.

        Args:
            context: of the call.
            norm_rope: of `operations.Operations`.
            attention: the backend.
            dilated: see `grouping`.
        """
        qkv = self.to_query_key_value(normed).unflatten(-1, (3, -1, self.head_dim))
        terms = (qkv, self.query_norm, self.key_norm, context.rope, attention.query_scale(self.head_dim))
        if attention.attend_projected is not None and context.layout.is_one_sequence:
            return self.output_layer(attention.attend_projected(*terms).flatten(1))
        attended = context.attend(norm_rope(*terms), attend=attention.attend, dilated=dilated)
        return self.output_layer(attended.flatten(1))


class FeedForward(nn.Module):
    """Linear, exact GELU, Linear."""

    def __init__(self, model_dim: int, ff_dim: int):
        super().__init__()
        self.in_layer = nn.Linear(model_dim, ff_dim)
        self.out_layer = nn.Linear(ff_dim, model_dim)

    def forward(self, normed: "Tensor | Quantised", gelu: Gelu) -> Tensor:
        return self.out_layer(gelu(self.in_layer(normed)))


class OutLayer(nn.Module):
    """Modulated norm of the visual tokens, and their projection to patches of (channel, frame, row, column).

    That order inside a patch differs from the input's; it is what the published weights mean.
    """

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.patch_size = config.patch_size
        self.norm = nn.LayerNorm(config.model_dim, eps=NORM_EPS)
        self.out_layer = nn.Linear(config.model_dim, math.prod(config.patch_size) * config.out_visual_dim)
        self.modulation_out = nn.Linear(config.time_dim, 2 * config.model_dim)

    def modulation(self, time_embed: Tensor) -> Tensor:
        """`[..., time_dim]` -> (shift, scale) `[..., 2, model_dim]`."""
        return self.modulation_out(F.silu(time_embed)).unflatten(-1, (2, -1))

    def unpatch(self, patches: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """`[visual_tokens, C pt ph pw]` -> `[T, H, W, C]`."""
        pt, ph, pw = self.patch_size
        x = patches.unflatten(-1, (-1, pt, ph, pw)).unflatten(0, grid)
        return x.permute(0, 4, 1, 5, 2, 6, 3).flatten(4, 5).flatten(2, 3).flatten(0, 1)


def linear_into(linear: nn.Module, x: "Tensor | Quantised", out: Tensor) -> None:
    """`linear(x)`, written to `out` `[rows, columns]`."""
    if not isinstance(linear, nn.Linear) or not isinstance(x, Tensor):  # Float8Linear
        linear(x, out=out)
    elif linear.bias is None:
        torch.mm(x, linear.weight.T, out=out)
    else:
        torch.addmm(linear.bias, x, linear.weight.T, out=out)
