"""The DiT's element-wise steps, a value that the model is given: plain PyTorch, or fused kernels that compute the same.

`PLAIN` runs everywhere, is differentiable, and is the oracle of the others. `fused()` has Triton kernels (see
`kernels`); with `quantise` they return the operands of scaled float8 products, for layers that are `Float8Linear`.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.config import KERNELS
from kandinsky.model.fused_support import first_line, why_not_fused
from kandinsky.model.layout import Segments
from kandinsky.model.rope import rotate

if TYPE_CHECKING:
    from kandinsky.model.quantised import Quantised


_log = logging.getLogger(__name__)


class Modulation(NamedTuple):
    """adaLN terms of one sub-layer, each `[segments, model_dim]`."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


class Residual(NamedTuple):
    """A sub-layer's output `[tokens, model_dim]`, not yet gated and added: the next norm does it in the same pass."""

    branch: Tensor
    gate: Tensor


AddNorm = Callable[..., tuple[Tensor, "Tensor | Quantised"]]
NormRope = Callable[..., Tensor]
Gelu = Callable[[Tensor], "Tensor | Quantised"]


@dataclass(frozen=True)
class Operations:
    """One implementation of the three steps; signatures are those of `add_norm`, `norm_rope` and F.gelu below.

    Args:
        name: "torch" or "triton", as records tell it.
        add_norm, norm_rope, gelu: the steps.
        fallback: what is taken if these turn out not to run (see `trial`); None where they were asked for by name.
    """

    name: str
    add_norm: AddNorm
    norm_rope: NormRope
    gelu: Gelu
    fallback: "Operations | None" = None


def layer_norm(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """LayerNorm in float32, left in float32."""
    return F.layer_norm(x.float(), norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)


def add_residual(tokens: Tensor, residual: Residual, segments: Segments) -> Tensor:
    """tokens + gate x branch, in tokens' dtype."""
    rows = zip(segments.split(tokens), segments.split(residual.branch), residual.gate.type_as(tokens), strict=True)
    return torch.cat([torch.addcmul(part, branch, gate) for part, branch, gate in rows])


def modulate(normed: Tensor, modulation: Modulation, segments: Segments, dtype: torch.dtype) -> Tensor:
    """normed (1 + scale) + shift, in float32 and rounded once, `[tokens, model_dim]`."""
    rows = zip(segments.split(normed), modulation.shift.float(), 1 + modulation.scale.float(), strict=True)
    return torch.cat([torch.addcmul(add, part, multiply).to(dtype) for part, add, multiply in rows])


def add_norm(
    tokens: Tensor, residual: Residual | None, norm: nn.LayerNorm, modulation: Modulation, segments: Segments
) -> tuple[Tensor, Tensor]:
    """Add the pending residual, then norm and modulate: the stream and the next sub-layer's input, in tokens' dtype."""
    if residual is not None:
        tokens = add_residual(tokens, residual, segments)
    return tokens, modulate(layer_norm(tokens, norm), modulation, segments, tokens.dtype)


def norm_rope(
    qkv: Tensor, query_norm: nn.LayerNorm, key_norm: nn.LayerNorm, rope: Tensor, query_scale: float
) -> Tensor:
    """LayerNorm over head_dim and RoPE of queries and keys; queries times `query_scale` before their last rounding.

    Args:
        qkv: `[tokens, 3, heads, head_dim]`.
        rope: (cos, sin), float32 `[tokens, head_dim / 2, 2]`.
    """
    query, key, value = qkv.unbind(1)
    query = rotate(layer_norm(query, query_norm).type_as(query), rope, scale=query_scale)
    key = rotate(layer_norm(key, key_norm).type_as(key), rope)
    return torch.stack((query, key, value), dim=1)


PLAIN = Operations("torch", add_norm, norm_rope, F.gelu)


def choose_operations(kernels: str, device: torch.device, *, quantise: bool = False) -> Operations:
    """Operations for a device: `torch` is plain, `triton` is fused, `auto` is fused where that runs.

    Raises:
        ValueError: an unknown name, or fused kernels asked for where they cannot run.
    """
    if kernels not in KERNELS:
        raise ValueError(f"kernels={kernels!r}: allowed are {', '.join(map(repr, KERNELS))}")
    why_not = why_not_fused(device)
    if kernels == "triton" and why_not:
        raise ValueError(f"kernels='triton': {why_not}; allowed: 'auto', 'torch'")
    if quantise and (kernels == "torch" or why_not):
        why = f": {why_not}" if why_not else ""
        raise ValueError(f"precision='fast' needs Triton's kernels, kernels='auto' or 'triton'{why}")
    if kernels == "auto" and why_not and device.type == "cuda":
        _log.warning("PyTorch's own kernels are taken instead of the fused ones: %s", why_not)
    if kernels == "torch" or why_not:
        return PLAIN
    try:
        found = fused(quantise=quantise)
    except Exception as error:
        if kernels == "triton" or quantise:
            raise ValueError(f"kernels={kernels!r}: Triton cannot be imported: {first_line(error)}") from error
        _log.warning("PyTorch's own kernels are taken, Triton cannot be imported: %s", first_line(error))
        return PLAIN
    return found if kernels == "triton" or quantise else replace(found, fallback=PLAIN)


def fused(*, quantise: bool = False) -> Operations:
    """Triton kernels; with `quantise` the norms and GELU return float8 rows.

    Without, GELU is PyTorch's own kernel, which is faster than one in Triton (docs/benchmarks.md).

    Raises:
        ImportError: Triton is not installed.
    """
    from kandinsky.model import kernels

    def fused_add_norm(
        tokens: Tensor, residual: Residual | None, norm: nn.LayerNorm, modulation: Modulation, segments: Segments
    ) -> "tuple[Tensor, Tensor | Quantised]":
        branch, gate = residual or (None, None)
        terms = (gate, modulation.shift, modulation.scale)
        return kernels.add_norm(tokens, branch, terms, norm, segments.index, quantise=quantise)

    return Operations("triton", fused_add_norm, kernels.norm_rope_, kernels.gelu_quantise if quantise else F.gelu)
