"""What a run that trains low-rank weights has on a GPU at most: an estimate from sizes alone, nothing is loaded.

Weights, gradients and moments are counted from the modules themselves, on PyTorch's meta device. What a step holds
besides, with gradient checkpointing and one clip at a time, grows with tokens x channels: for each pair of blocks what
is kept of its inputs, for each head the stream that it scores, and once what a block needs while it is computed again.
"""

from dataclasses import dataclass

import torch

from kandinsky.config import DiTConfig
from kandinsky.memory.footprint import LIBRARY_BYTES
from kandinsky.model.dit import DiT
from kandinsky.training.discriminator import Heads
from kandinsky.training.lora_model import linears_with
from kandinsky.training.lora_settings import LoraSettings

PAIR = 8
"""Bytes for each token and channel of a pair of blocks: two blocks, of each the stream and a branch in bfloat16."""
HEAD = 4
"""Likewise of a head: the stream of a fake clip and of a real one."""
REST = 97
"""Likewise of all that lives while one block is computed again; found by adding up the tensors of a step."""


@dataclass(frozen=True)
class LoraNeeds:
    """Bytes on the GPU.

    Args:
        base: weights that stay as they are.
        trained: low-rank weights and heads, with gradients, moments and averages.
        working: what a step holds besides.
    """

    base: int
    trained: int
    working: int

    @property
    def peak(self) -> int:
        return self.base + self.trained + self.working


def lora_needs(config: DiTConfig, settings: LoraSettings, *, tokens: int) -> LoraNeeds:
    """What a run takes with gradient checkpointing and one clip at a time.

    Args:
        config: sizes of the DiT.
        settings: of the run.
        tokens: of the largest clip, with its text's.
    """
    adversarial = settings.objective == "ladd"
    with torch.device("meta"):
        dit, heads = DiT(config), Heads(config, every=settings.heads_every)
    exact = 2 if settings.mixed_precision == "bf16" else 4
    base = exact * sum(value.numel() for value in dit.parameters())
    adapters = 0
    for linear in linears_with(dit, settings.targets).values():
        adapters += settings.rank * (linear.in_features + linear.out_features)
        if settings.base_precision == "float8":
            base -= (exact - 1) * linear.weight.numel() - 4 * linear.out_features
    scores = sum(value.numel() for value in heads.parameters()) if adversarial else 0
    moments = 8 if settings.optimiser_bits == 32 else 2
    average = 4 if settings.ema_decay else 0
    trained = adapters * (4 + 4 + average + moments) + scores * (4 + 4 + moments)
    trees = 1 + adversarial + (settings.keep is not None)
    bytes_each = PAIR * config.num_blocks * trees + HEAD * len(heads) * adversarial + REST
    return LoraNeeds(base, trained, tokens * config.model_dim * bytes_each + LIBRARY_BYTES)
