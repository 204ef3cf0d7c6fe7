"""The MMDiT transformer of Kandinsky 4.0 T2V Flash as one flat token stream.

Legend:  visual: [T, H, W, C] latents (clips concatenated along T)      text: [text_tokens, in_text_dim] (likewise)
         tokens: [tokens, model_dim], see `layout` for their order      time_embed: [..., clips, time_dim]

What does not change between steps is computed once: the modulation of known timesteps in `DiT.modulation`, text tokens
and RoPE table in `DiT.prepare`; `DiT.step` then asks the device for nothing. `DiT.forward` is all together, and
differentiable with plain operations. Sequence lengths are Python ints. Attention and element-wise steps are values,
given by whoever builds the model.
"""

from functools import partial

import torch
from torch import Tensor, nn

from kandinsky.config import DiTConfig
from kandinsky.model.attention import TORCH, Attention
from kandinsky.model.bounded import ANY, Logits
from kandinsky.model.context import Context, ModulationTable
from kandinsky.model.grouping import attend_clips
from kandinsky.model.layers import (
    NORM_EPS,
    FeedForward,
    ModulationLayer,
    OutLayer,
    SelfAttention,
    TextEmbeddings,
    TimeEmbeddings,
    VisualEmbeddings,
)
from kandinsky.model.layout import Clip, Segments, TokenLayout
from kandinsky.model.operations import PLAIN, Modulation, Operations, Residual, add_norm, add_residual
from kandinsky.model.rope import RoPE3D


class TransformerBlock(nn.Module):
    """Attention over visual and text tokens together, then a feed-forward; all but the modulation is shared by both."""

    def __init__(self, config: DiTConfig, *, dilated: bool):
        super().__init__()
        self.dilated = dilated
        self.visual_modulation = ModulationLayer(config.time_dim, config.model_dim)
        self.text_modulation = ModulationLayer(config.time_dim, config.model_dim)
        self.self_attention_norm = nn.LayerNorm(config.model_dim, eps=NORM_EPS)
        self.self_attention = SelfAttention(config.model_dim, config.head_dim)
        self.feed_forward_norm = nn.LayerNorm(config.model_dim, eps=NORM_EPS)
        self.feed_forward = FeedForward(config.model_dim, config.ff_dim)

    def modulation(self, time_embed: Tensor) -> Tensor:
        """`[..., clips, time_dim]` -> `[..., segments, 6, model_dim]`, segments in stream order."""
        pair = (self.visual_modulation(time_embed), self.text_modulation(time_embed))
        return torch.stack(pair, dim=-3).flatten(-4, -3)

    def forward(
        self,
        tokens: Tensor,
        residual: Residual | None,
        modulation: Tensor,
        context: Context,
        run: Operations,
        backend: Attention,
    ) -> tuple[Tensor, Residual]:
        """The stream with the attention added, and the feed-forward's output still to be added.

        Args:
            tokens: `[tokens, model_dim]`.
            residual: what the block before left to be added.
            modulation: `[segments, 6, model_dim]`.
            run: the element-wise steps.
            backend: of the attention, for this block's logits.
        """
        attention, feed_forward = (Modulation(*terms.unbind(1)) for terms in modulation.split(3, dim=1))
        tokens, normed = run.add_norm(tokens, residual, self.self_attention_norm, attention, context.segments)
        branch = self.self_attention(normed, context, run.norm_rope, attention=backend, dilated=self.dilated)
        residual = Residual(branch, attention.gate)
        tokens, normed = run.add_norm(tokens, residual, self.feed_forward_norm, feed_forward, context.segments)
        return tokens, Residual(self.feed_forward(normed, run.gelu), feed_forward.gate)


class DiT(nn.Module):
    """Velocity of latents at a timestep, given text.

    Args:
        config: sizes.
        attention: full attention of one sequence, a row of `attention.BACKENDS`.
        operations: the element-wise steps, plain or fused.
    """

    def __init__(self, config: DiTConfig, *, attention: Attention = TORCH, operations: Operations = PLAIN):
        super().__init__()
        self.config = config
        self.operations = operations
        self.time_embeddings = TimeEmbeddings(config.model_dim, config.time_dim)
        self.text_embeddings = TextEmbeddings(config.in_text_dim, config.model_dim)
        self.visual_embeddings = VisualEmbeddings(config)
        self.rope_embeddings = RoPE3D(config.axes_dims)
        self.transformer_blocks = nn.ModuleList(
            nn.ModuleList((TransformerBlock(config, dilated=False), TransformerBlock(config, dilated=True)))
            for _ in range(config.num_blocks)
        )
        self.out_layer = OutLayer(config)
        self._attention = attention
        self._attentions = [attention] * len(self.blocks)  # right for any norms; theirs are not loaded yet

    @property
    def attention(self) -> Attention:
        """The backend. To be set when the weights are there: it is fitted to the norms of each block then."""
        return self._attention

    @attention.setter
    def attention(self, attention: Attention) -> None:
        fits = attention.fit is not None  # others are the same for any norms, which are not asked then
        logits = self.logits() if fits else [ANY] * len(self.blocks)
        self._attention, self._attentions = attention, [attention.for_logits(of_block) for of_block in logits]

    @property
    def dtype(self) -> torch.dtype:
        return self.visual_embeddings.in_layer.weight.dtype

    @property
    def device(self) -> torch.device:
        return self.visual_embeddings.in_layer.weight.device

    @property
    def blocks(self) -> list[TransformerBlock]:
        """All transformer blocks in the order in which they run: local, global, local, ..."""
        return [block for pair in self.transformer_blocks for block in pair]  # type: ignore[union-attr]

    def logits(self) -> list[Logits]:
        """How large those of each block's attention are."""
        parts = [block.self_attention for block in self.blocks]
        return [Logits.of(part.query_norm, part.key_norm) for part in parts]

    def layout(self, grid: tuple[int, int, int], text_tokens: int) -> TokenLayout:
        """Layout of one clip whose latents are `grid` (T, H, W)."""
        frames, rows, columns = (size // patch for size, patch in zip(grid, self.config.patch_size, strict=True))
        return TokenLayout((Clip((frames, rows, columns), text_tokens),))

    def modulation(self, times: Tensor) -> ModulationTable:
        """Modulation of every block at integer timesteps `[steps, clips]`."""
        time_embed = self.time_embeddings(times)
        blocks = torch.stack([block.modulation(time_embed) for block in self.blocks], dim=1)
        return ModulationTable(blocks, self.out_layer.modulation(time_embed))

    def prepare(self, text: Tensor, modulation: ModulationTable, layout: TokenLayout) -> Context:
        """What all steps of a call share.

        Args:
            text: `[text_tokens, in_text_dim]`, clips concatenated.
            modulation: of the steps' timesteps.
            layout: of the token stream.
        """
        return Context(
            layout=layout,
            text=self.text_embeddings(text).split([clip.text_tokens for clip in layout.clips]),
            rope=self.rope_embeddings(layout),
            modulation=modulation,
            segments=Segments.of(layout.segment_lengths, self.device),
            visual_segments=Segments.of(layout.segment_lengths[::2], self.device),
            attend=partial(attend_clips, layout=layout),
        )

    def embed(self, visual: Tensor, context: Context) -> Tensor:
        """Latents `[T, H, W, C]` and the context's text to the token stream `[tokens, model_dim]`."""
        visual_tokens = context.visual_segments.split(self.visual_embeddings(visual))
        return torch.cat([part for pair in zip(visual_tokens, context.text, strict=True) for part in pair])

    def transform(self, tokens: Tensor, context: Context, index: int) -> Tensor:
        """All transformer blocks at the context's timestep `index`, `[tokens, model_dim]` to the same."""
        residual = None
        with torch.cuda.device_of(tokens):  # Triton launches on the current device, whatever the tensors' own
            parts = zip(self.blocks, self._attentions, context.modulation.blocks[index], strict=True)
            for block, attention, modulation in parts:
                tokens, residual = block(tokens, residual, modulation, context, self.operations, attention)
        assert residual is not None
        return add_residual(tokens, residual, context.segments)

    def project(self, tokens: Tensor, context: Context, index: int) -> Tensor:
        """The token stream to its visual tokens' patches of velocity, `[visual_tokens, pt ph pw out_visual_dim]`."""
        visual = torch.cat(context.segments.split(tokens)[::2])
        shift, scale = context.modulation.out[index].unbind(1)
        terms = Modulation(shift, scale, gate=scale)
        _, normed = add_norm(visual, None, self.out_layer.norm, terms, context.visual_segments)
        return self.out_layer.out_layer(normed)

    def assemble(self, patches: Tensor, context: Context) -> Tensor:
        """Patches to the velocity `[T, H, W, out_visual_dim]`."""
        parts = zip(context.visual_segments.split(patches), context.layout.clips, strict=True)
        return torch.cat([self.out_layer.unpatch(part, clip.grid) for part, clip in parts])

    def step(self, visual: Tensor, context: Context, index: int) -> Tensor:
        """Velocity `[T, H, W, out_visual_dim]` of latents `[T, H, W, in_visual_dim]` at timestep `index`."""
        tokens = self.transform(self.embed(visual, context), context, index)
        return self.assemble(self.project(tokens, context, index), context)

    def forward(self, visual: Tensor, text: Tensor, time: Tensor, layout: TokenLayout | None = None) -> Tensor:
        """Velocity of one call.

        Args:
            visual: `[T, H, W, in_visual_dim]`.
            text: `[text_tokens, in_text_dim]`.
            time: integer timestep of each clip, `[clips]`.
            layout: needed for several clips or groups; by default one clip with full attention.
        """
        if layout is None:
            frames, rows, columns, _ = visual.shape
            layout = self.layout((frames, rows, columns), len(text))
        return self.step(visual, self.prepare(text, self.modulation(time[None]), layout), 0)
