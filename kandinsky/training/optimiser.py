"""The optimiser of a run: PyTorch's AdamW, or bitsandbytes' with its moments in 8 bits (arXiv 2110.02861)."""

import torch
from torch import nn

from kandinsky.training.settings import RunSettings

FEW_BITS = 8


def make_optimiser(objective: nn.Module, settings: RunSettings, device: torch.device) -> torch.optim.Optimizer:
    """AdamW over what is trained, in a group for each part of the objective; rates are set before each step."""
    groups = [
        {"params": [value for name, value in objective.named_parameters() if name.startswith(prefix)], "lr": 0.0}
        | {"betas": (adam.beta1, adam.beta2), "weight_decay": adam.weight_decay}
        for prefix, adam in settings.groups().items()
    ]
    if settings.optimiser_bits != FEW_BITS:
        return torch.optim.AdamW(groups, fused=device.type == "cuda")
    from bitsandbytes.optim import AdamW8bit  # pyright: ignore[reportMissingImports]  # an extra

    return AdamW8bit(groups)
