"""LADD's discriminator: the frozen teacher's features, scored by a trainable head after every global block.

Source: the model's authors, who draw a head as half an MMDiT block; the method is arXiv 2403.12015. The teacher is not
changed: forward hooks take what its blocks return. What is scored are the visual tokens.

Legend:  tokens: [clips x (visual + text tokens), model_dim]     scores: [clips, visual_tokens]
"""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from kandinsky.config import DiTConfig
from kandinsky.model.attention import TORCH
from kandinsky.model.context import Context
from kandinsky.model.dit import DiT
from kandinsky.model.layers import NORM_EPS, SelfAttention
from kandinsky.model.operations import Residual, norm_rope
from kandinsky.training.velocity import add_residual, velocity, visual_rows

CONTEXT = 3
"""Its place among the arguments of `TransformerBlock.forward`."""


class Head(nn.Module):
    """Half an MMDiT block: modulated norm, attention, gated residual on the visual tokens, one score for each."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.norm = nn.LayerNorm(config.model_dim, eps=NORM_EPS)
        self.modulation = nn.Linear(config.time_dim, 5 * config.model_dim)
        self.attention = SelfAttention(config.model_dim, config.head_dim)
        self.score = nn.Linear(config.model_dim, 1)
        # It begins as a norm without modulation and an open gate.
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():
            self.modulation.bias[-config.model_dim :] = 1

    def forward(self, tokens: Tensor, time_embed: Tensor, context: Context) -> Tensor:
        """Scores of one block's features.

        Args:
            tokens: the teacher's stream after the block.
            time_embed: of the teacher, `[clips, time_dim]`.
            context: of the teacher's call.
        """
        terms = self.modulation(F.silu(time_embed)).unflatten(-1, (5, -1)).unsqueeze(2)  # [clips, 5, 1, model_dim]
        visual_shift, visual_scale, text_shift, text_scale, gate = terms.unbind(1)
        clip = context.layout.clips[0]
        normed = self.norm(tokens).unflatten(0, (len(time_embed), -1))
        visual, text = normed.split((clip.visual_tokens, clip.text_tokens), dim=1)
        parts = (visual * (1 + visual_scale) + visual_shift, text * (1 + text_scale) + text_shift)
        mixed = torch.cat(parts, dim=1).flatten(0, 1).type_as(tokens)
        attended = self.attention(mixed, context, norm_rope, attention=TORCH, dilated=False)
        gated = visual_rows(tokens, context) + gate * visual_rows(attended, context)
        return self.score(gated.type_as(tokens))[..., 0]


class Heads(nn.ModuleList):
    """One head for each of the teacher's global blocks, or for the last of every `every` of them."""

    def __init__(self, config: DiTConfig, *, every: int = 1):
        super().__init__(Head(config) for _ in range(config.num_blocks // every))

    def forward(
        self,
        features: list[Tensor],
        time_embed: Tensor,
        context: Context,
        *,
        frozen: bool = False,
        checkpointing: bool = False,
    ) -> list[Tensor]:
        """Scores of every head.

        Args:
            frozen: gradients reach the features, and no parameter of a head.
            checkpointing: compute each head again on the way back instead of keeping its activations.
        """
        scores = []
        for head, tokens in zip(self, features, strict=True):
            # Within what is computed again, or it would be with other parameters the second time.
            run = partial(functional_call, head, _detached(head)) if frozen else partial(_call, head)
            arguments = (tokens, time_embed, context)
            again = checkpointing and torch.is_grad_enabled()
            scores.append(checkpoint(run, arguments, use_reentrant=False) if again else run(arguments))
        return scores


def _call(head: nn.Module, arguments: tuple[Any, ...]) -> Tensor:
    return head(*arguments)


def _detached(head: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in head.named_parameters()}


class Features:
    """A frozen teacher's stream after every global block; forward hooks take it, so the teacher is not changed.

    The hooks stay, and keep something only while a call runs.

    Args:
        teacher: a DiT.
        every: of so many global blocks, the last one's stream is taken.
    """

    def __init__(self, teacher: DiT, *, every: int = 1):
        self.teacher = teacher
        self._outputs: list[tuple[Tensor, Residual, Context]] | None = None
        for block in [block for block in teacher.blocks if block.dilated][every - 1 :: every]:
            block.register_forward_hook(self._keep)

    def _keep(self, _module: nn.Module, arguments: tuple[Any, ...], output: tuple[Tensor, Residual]) -> None:
        if self._outputs is not None:  # a checkpointed block runs again on the way back
            self._outputs.append((*output, arguments[CONTEXT]))

    def __call__(
        self, visual: Tensor, text: Tensor, time: Tensor, *, checkpointing: bool = False
    ) -> tuple[list[Tensor], Tensor, Context]:
        """The streams, the teacher's time embedding, and the context of the call.

        Args:
            visual: noisy latents `[clips, T, H, W, C]`; gradients reach them, and no parameter of the teacher.
            text: `[clips, text_tokens, in_text_dim]`.
            time: their timesteps `[clips]`.
        """
        self._outputs = outputs = []
        velocity(self.teacher, visual, text, time, checkpointing=checkpointing)
        self._outputs = None
        streams = [add_residual(tokens, residual, context.segments) for tokens, residual, context in outputs]
        return streams, self.teacher.time_embeddings(time), outputs[0][2]
