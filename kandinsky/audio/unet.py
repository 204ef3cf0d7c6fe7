"""The velocity of V2A: diffusers' UNet of Stable Diffusion 1's kind, whose attention also looks at video and text.

SPEC of the published code (ai-forever/Kandinsky-4, `kandinsky4_video2audio/model`). Every self-attention is followed by
an attention to the video's frames, and every cross-attention takes the encoder's text embedding through a Linear. Both
are processors as diffusers calls them, so that the names of their weights are those of the published files.

Shapes: B batch, N positions of the picture, F frames, T rows of text, h channels, E = 4096 of the encoder.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

ENCODER_DIM = 4096
"""Channels of the text and video embeddings: the hidden size of their encoder."""


def frame_positions(frames: int, head_dim: int, *, device: torch.device | None = None) -> Tensor:
    """Sines and cosines of the frames' numbers, `[frames, head_dim]`, sines first; float32."""
    half = head_dim // 2
    rates = torch.exp(torch.arange(half, device=device) * (-math.log(10_000) / (half - 1)))
    angles = torch.arange(frames, device=device)[:, None] * rates
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def _inner() -> Any:
    """diffusers' own attention, which both processors build on."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    return AttnProcessor2_0()


class VideoAttention(nn.Module):
    """Processor of a self-attention: diffusers' own, then an attention from its result to the video's frames.

    Args:
        channels: of the pictures that go through the block, h.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.video_q = nn.Linear(channels, channels)
        self.video_k = nn.Linear(ENCODER_DIM, channels)
        self.video_v = nn.Linear(ENCODER_DIM, channels)
        self.video_out = nn.Linear(channels, channels)
        self._inner = _inner()

    def __call__(  # not `forward`: diffusers reads this one's arguments to see what it may hand over
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        video_embed: Tensor | None = None,
    ) -> Tensor:
        """As diffusers calls it, with `video_embed` [B, F, E] out of the UNet's `cross_attention_kwargs`."""
        assert video_embed is not None
        y = self._inner(attn, hidden_states, encoder_hidden_states, attention_mask, temb)  # [B, N, h]
        q, k, v = (
            projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)  # [B, heads, N or F, head_dim]
            for projected in (self.video_q(y), self.video_k(video_embed), self.video_v(video_embed))
        )
        positions = frame_positions(k.shape[2], k.shape[3], device=k.device)
        seen = F.scaled_dot_product_attention(q, (k + positions).type_as(q), (v + positions).type_as(q))
        return y + self.video_out(seen.transpose(1, 2).flatten(2))


class TextAttention(nn.Module):
    """Processor of a cross-attention: diffusers' own, to the encoder's text in the UNet's dimensions.

    Args:
        text_dim: that the UNet expects, its `cross_attention_dim`.
    """

    def __init__(self, text_dim: int):
        super().__init__()
        self.text_projection = nn.Linear(ENCODER_DIM, text_dim)
        self._inner = _inner()

    def __call__(  # as above
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        video_embed: Tensor | None = None,  # noqa: ARG002  # diffusers hands each processor the same
    ) -> Tensor:
        """As diffusers calls it, with `encoder_hidden_states` [B, T, E]."""
        text = self.text_projection(encoder_hidden_states)  # [B, T, text_dim]
        return self._inner(attn, hidden_states, text, attention_mask, temb)


def build_unet(config: Mapping[str, Any]) -> Any:
    """diffusers' `UNet2DConditionModel` with our processors; weights are as they are drawn.

    Args:
        config: its arguments, as `unet/config.json` has them.
    """
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_config(dict(config))
    assert isinstance(unet, UNet2DConditionModel)
    processors: dict[str, Any] = {}
    for name in unet.attn_processors:
        attention: Any = unet.get_submodule(name.removesuffix(".processor"))
        is_self = name.endswith("attn1.processor")
        processors[name] = (
            VideoAttention(attention.query_dim) if is_self else TextAttention(attention.cross_attention_dim)
        )
    unet.set_attn_processor(processors)
    return unet


def velocity(unet: Any, latents: Tensor, timestep: Tensor | int, *, text: Tensor, video: Tensor) -> Tensor:
    """What the UNet predicts, float32 `[B, 4, H, W]`: the noise in the latents.

    Args:
        latents: `[B, 4, H, W]`.
        timestep: 0 to 999.
        text: `[B, T, E]`.
        video: `[B, F, E]`.
    """
    extra = {"video_embed": video.to(unet.dtype)}
    out = unet(latents.to(unet.dtype), timestep, text.to(unet.dtype), cross_attention_kwargs=extra, return_dict=False)
    return out[0].float()
