"""The DiT's velocity for a batch of equal clips, differentiable and with gradient checkpointing if asked.

The model's stream packs clips one after another. Here all clips of a call have one shape, so that element-wise steps
and attention run over the batch at once instead of clip by clip: the same function as `DiT.forward` with a packed
layout, which a test holds. Nothing in `model/` knows of it.

Legend:  visual: [clips, T, H, W, C]     text: [clips, text_tokens, in_text_dim]     time: [clips]
         tokens: [clips x (visual + text tokens), model_dim]
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from kandinsky.model.attention import TORCH
from kandinsky.model.context import Context
from kandinsky.model.dit import DiT
from kandinsky.model.grouping import Attend
from kandinsky.model.layout import Segments, TokenLayout
from kandinsky.model.operations import Modulation, Operations, Residual, layer_norm, norm_rope


def velocity(dit: DiT, visual: Tensor, text: Tensor, time: Tensor, *, checkpointing: bool = False) -> Tensor:
    """Velocity `[clips, T, H, W, C]` of noisy latents at integer timesteps.

    Args:
        checkpointing: keep each block's input only, and compute the block again on the way back.
    """
    context = prepare(dit, text, time, visual.shape[1:4])
    tokens = embed(dit, visual, context)
    residual = None
    for block, modulation in zip(dit.blocks, context.modulation.blocks[0], strict=True):
        arguments = (tokens, residual, modulation, context, BATCHED, TORCH)
        if checkpointing and torch.is_grad_enabled():
            tokens, residual = checkpoint(block, *arguments, use_reentrant=False)  # type: ignore[misc]
        else:
            tokens, residual = block(*arguments)
    assert residual is not None
    return project(dit, add_residual(tokens, residual, context.segments), context).unflatten(0, visual.shape[:2])


def prepare(dit: DiT, text: Tensor, time: Tensor, grid: torch.Size) -> Context:
    """What the blocks share; `grid` is (T, H, W) of each clip's latents."""
    frames, rows, columns = grid
    one = dit.layout((frames, rows, columns), text.shape[1])
    clips = len(text)
    layout = TokenLayout(one.clips * clips)
    return Context(
        layout=layout,
        text=(dit.text_embeddings(text),),
        rope=dit.rope_embeddings(one).repeat(clips, 1, 1),
        modulation=dit.modulation(time[None]),
        segments=Segments(layout.segment_lengths, _unused_index(time)),
        visual_segments=Segments(layout.segment_lengths[::2], _unused_index(time)),
        attend=partial(attend_batch, clips=clips),
    )


def _unused_index(time: Tensor) -> Tensor:
    """Rows' segments are needed by fused kernels only."""
    return torch.empty(0, dtype=torch.int32, device=time.device)


def embed(dit: DiT, visual: Tensor, context: Context) -> Tensor:
    """Latents and the context's text to the token stream, in the weights' dtype."""
    patches = dit.visual_embeddings(visual.flatten(0, 1)).unflatten(0, (len(visual), -1))
    return torch.cat((patches, context.text[0]), dim=1).flatten(0, 1).to(dit.dtype)


def visual_rows(tokens: Tensor, context: Context) -> Tensor:
    """`[tokens, ...]` to the visual ones of each clip, `[clips, visual_tokens, ...]`."""
    clips = context.layout.clips
    return tokens.unflatten(0, (len(clips), -1))[:, : clips[0].visual_tokens]


def project(dit: DiT, tokens: Tensor, context: Context) -> Tensor:
    """The stream to velocities of all frames, `[clips x T, H, W, out_visual_dim]`."""
    visual = visual_rows(tokens, context).flatten(0, 1)
    shift, scale = context.modulation.out[0].unbind(1)
    _, normed = add_norm(visual, None, dit.out_layer.norm, Modulation(shift, scale, scale), context.visual_segments)
    frames, rows, columns = context.layout.clips[0].grid
    return dit.out_layer.unpatch(dit.out_layer.out_layer(normed), (frames * len(context.layout.clips), rows, columns))


def attend_batch(qkv: Tensor, *, clips: int, attend: Attend, dilated: bool) -> Tensor:  # noqa: ARG001
    """Attention of each clip within itself, `[tokens, 3, heads, head_dim]` to `[tokens, heads, head_dim]`.

    Args:
        attend, dilated: not needed: PyTorch's kernel takes the whole batch, and with one group both kinds are full.
    """
    query, key, value = qkv.unflatten(0, (clips, -1)).permute(2, 0, 3, 1, 4)  # each [clips, heads, tokens, head_dim]
    return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(0, 1)


def _spread(terms: Tensor, segments: Segments) -> Tensor:
    """Each segment's row `[segments, model_dim]` for all its tokens, `[tokens, model_dim]`."""
    kinds = len(set(segments.lengths[:2]))  # visual and text, or visual alone
    each = zip(terms.unflatten(0, (-1, kinds)).unbind(1), segments.lengths, strict=False)
    return torch.cat([part[:, None].expand(-1, length, -1) for part, length in each], dim=1).flatten(0, 1)


def add_residual(tokens: Tensor, residual: Residual, segments: Segments) -> Tensor:
    """tokens + gate x branch, in tokens' dtype."""
    return tokens + (residual.branch * _spread(residual.gate, segments)).type_as(tokens)


def add_norm(
    tokens: Tensor, residual: Residual | None, norm: nn.LayerNorm, modulation: Modulation, segments: Segments
) -> tuple[Tensor, Tensor]:
    """As `operations.add_norm`."""
    if residual is not None:
        tokens = add_residual(tokens, residual, segments)
    shift, scale = (_spread(terms.float(), segments) for terms in (modulation.shift, modulation.scale))
    return tokens, torch.addcmul(shift, layer_norm(tokens, norm), 1 + scale).type_as(tokens)


BATCHED = Operations("training", add_norm, norm_rope, F.gelu)
