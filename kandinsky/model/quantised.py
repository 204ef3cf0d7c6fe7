"""Rows as float8 e4m3 with a scale for each: operands of scaled matrix products, and weights equal to the bit on every
device.

What is used for weights is rounded the same everywhere: a product with a constant, a quotient of two tensors, a cast. A
quotient with a constant is not: CUDA multiplies with the constant's reciprocal, a CPU divides.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
FLOAT8_MAX = 448.0
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Quantised:
    """float8 e4m3 rows `[rows, columns]` and what to multiply each with, float32 `[rows, 1]`."""

    values: Tensor
    scale: Tensor

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice) -> "Quantised":
        return Quantised(self.values[rows], self.scale[rows])

    @classmethod
    def empty_like(cls, x: Tensor) -> "Quantised":
        """Room for the quantised form of `x`."""
        rows = x.shape[0]
        return cls(torch.empty_like(x, dtype=FLOAT8), torch.empty(rows, 1, device=x.device, dtype=torch.float32))


def quantise_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`[out, in]` to float8 `[out, in]`, and what its rows are to be multiplied with, float32 `[1, out]`.

    On the meta device only sizes: for arithmetic there, and for `empty_like`, PyTorch first imports its compiler or
    sympy, which take seconds.
    """
    if weight.is_meta:
        return weight.new_empty(weight.shape, dtype=FLOAT8), weight.new_empty(1, len(weight), dtype=torch.float32)
    largest = weight.float().abs().amax(dim=1, keepdim=True).clamp(min=SMALLEST_SCALE)
    scale = largest * (1 / FLOAT8_MAX)
    return (weight.float() / scale).to(FLOAT8), scale.T.contiguous()
