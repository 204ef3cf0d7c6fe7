"""A DiT to train: from published or trained weights, or freshly drawn.

Weights are float32: mixed precision casts them where they are used.
"""

from pathlib import Path

import torch
from torch import nn

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.config import DiTConfig
from kandinsky.loading.components import load_dit
from kandinsky.model.dit import DiT
from kandinsky.model.layers import ModulationLayer, OutLayer


def load_trainable(path: Path) -> DiT:
    """The DiT in a `.pt` or `.safetensors` file, in float32 on the CPU, with gradients.

    Raises:
        FileNotFoundError, CheckpointError: see `load_dit`.
    """
    dit = load_dit(open_checkpoint(path), device=torch.device("cpu"), dtype=torch.float32)
    return dit.requires_grad_(True).train()


def fresh(config: DiTConfig, *, seed: int) -> DiT:
    """A DiT that begins as the identity: Linears Xavier, modulation and last layer zero (arXiv 2212.09748,
    adaLN-Zero)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        dit = DiT(config)
        for module in dit.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
    for module in dit.modules():
        if isinstance(module, ModulationLayer):
            nn.init.zeros_(module.out_layer.weight)
        if isinstance(module, OutLayer):
            nn.init.zeros_(module.out_layer.weight)
            nn.init.zeros_(module.modulation_out.weight)
    return dit
