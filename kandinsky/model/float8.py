"""Linears in float8 e4m3 with a scale for each row of activations and weights: half the memory, twice the product rate.

Lossy, and only by choice (`precision="fast"`). Method: row-wise scaling as in arXiv 2209.05433 and PyTorch's
`torch._scaled_mm`. Needs compute capability 8.9 (Ada, Hopper) or newer.
"""

import torch
from torch import Tensor, nn

from kandinsky.model.kernels import quantise_rows
from kandinsky.model.quantised import Quantised, quantise_weight


class Float8Linear(nn.Module):
    """A Linear whose weight is float8, quantised here once; the bias stays as it is.

    Args:
        linear: bfloat16.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight, scale = quantise_weight(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, x: Tensor | Quantised, *, out: Tensor | None = None) -> Tensor:
        """`[rows, in]` to bfloat16 `[rows, out]`, into `out` if given; rows that are not yet quantised are, here."""
        rows = x if isinstance(x, Quantised) else quantise_rows(x)
        weight, scale = self.get_buffer("weight"), self.get_buffer("scale")
        return torch._scaled_mm(
            rows.values,
            weight.T,
            scale_a=rows.scale,
            scale_b=scale,
            bias=self.bias,
            out_dtype=torch.bfloat16,
            use_fast_accum=True,
            **({} if out is None else {"out": out}),
        )


def quantise_block_(block: nn.Module) -> None:
    """Replace the Linears of one `dit.TransformerBlock`'s attention and feed-forward; those that are float8 stay."""
    for part in (*block.get_submodule("self_attention").modules(), *block.get_submodule("feed_forward").modules()):
        for name, child in list(part.named_children()):
            if isinstance(child, nn.Linear):
                setattr(part, name, Float8Linear(child))
