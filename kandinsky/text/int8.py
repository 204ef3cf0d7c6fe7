"""Linears with int8 weights and a scale for each row of the result: half the memory of bfloat16.

Lossy, and only by choice (`text_encoder_int8=True`). Weights alone are quantised (absmax, as in arXiv 2208.07339
without its outliers); products are computed in the activations' dtype, which holds every int8 exactly.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Int8Linear(nn.Module):
    """A Linear without a bias, quantised here once."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        assert linear.bias is None, "T5 has no biases"
        scale = linear.weight.float().abs().amax(dim=1).clamp(min=1e-12) / 127
        self.register_buffer("weight", (linear.weight.float() / scale[:, None]).round().to(torch.int8))  # [out, in]
        self.register_buffer("scale", scale)  # [out]

    def forward(self, x: Tensor) -> Tensor:
        """`[..., in]` to `[..., out]`, in x's dtype."""
        weight, scale = self.get_buffer("weight"), self.get_buffer("scale")
        return F.linear(x, weight.to(x.dtype)) * scale.to(x.dtype)


def quantise_linears_(module: nn.Module, device: torch.device) -> None:
    """Replace every Linear below `module`, one at a time: quantised on `device`, then back where it was."""
    for part in list(module.modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                home = child.weight.device
                setattr(part, name, Int8Linear(child.to(device)).to(home))
