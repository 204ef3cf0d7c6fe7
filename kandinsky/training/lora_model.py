"""A frozen DiT with and without low-rank weights: two trees of modules over one copy of the weights.

PEFT puts its layers into the one tree; the other one has the same Linears as they were, and is what LADD takes as the
teacher. Nothing is switched on and off, so that a checkpointed block that runs again on the way back is still the
one that it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kandinsky.model.dit import DiT
from kandinsky.model.quantised import quantise_weight

NAME = "default"
"""Of the adapter, as PEFT calls one that nobody named."""


@dataclass(frozen=True)
class Adapted:
    """Two DiTs over the same weights.

    Args:
        base: frozen, as it was loaded.
        dit: with PEFT's layers around the same Linears.
    """

    base: DiT
    dit: DiT


def adapted(base: DiT, *, rank: int, alpha: float, targets: tuple[str, ...], dropout: float, seed: int) -> Adapted:
    """The base with low-rank weights that begin as no change: `up` is zero, `down` is drawn from the seed.

    Args:
        base: is frozen by this.
        targets: ends of the names of the Linears that get them.

    Raises:
        ValueError: a target is the end of no Linear's name.
    """
    base.requires_grad_(False).eval()
    chosen = list(linears_with(base, targets))
    dit = sharing(base)
    from peft import LoraConfig, inject_adapter_in_model

    # Names are given in full: PEFT takes a target for the end of a name.
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, lora_dropout=dropout)  # type: ignore[arg-type]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(config, dit, NAME)
    for layer in lora_layers(dit).values():
        layer.lora_A[NAME].float()
        layer.lora_B[NAME].float()
    return Adapted(base, dit)


def linears_with(dit: DiT, targets: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The Linears whose names end with one of `targets`, by name; raises as `targeted`."""
    linears = {name: module for name, module in dit.named_modules() if isinstance(module, nn.Linear)}
    return {name: linears[name] for name in targeted(linears, targets)}


def targeted(linears: Iterable[str], targets: tuple[str, ...]) -> list[str]:
    """The names of Linears that end with one of `targets`.

    Raises:
        ValueError: a target is the end of no name.
    """
    names = list(linears)
    for target in targets:
        if not any(_ends(name, target) for name in names):
            ends = sorted({".".join(name.split(".")[-2:]) for name in names})
            raise ValueError(f"targets: {target!r} is the end of no Linear's name; allowed are {', '.join(ends)}")
    return [name for name in names if any(_ends(name, target) for target in targets)]


def _ends(name: str, target: str) -> bool:
    return name == target or name.endswith(f".{target}")


def sharing(dit: DiT) -> DiT:
    """Another tree of modules over the very same leaves."""
    with torch.device("meta"):
        other = DiT(dit.config, attention=dit.attention, operations=dit.operations)
    for name, module in dit.named_modules():
        if not any(True for _ in module.children()):
            other.set_submodule(name, module)
    return other.eval()


def lora_layers(dit: nn.Module) -> dict[str, Any]:
    """PEFT's layers by the name of the Linear that each stands for."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in dit.named_modules() if isinstance(module, LoraLayer)}


class Adapters(nn.Module):
    """The low-rank weights of a DiT alone, under the names of a LoRA's file.

    They are the very parameters of PEFT's layers: what trains, averages or loads these has done it to the DiT.
    """

    def __init__(self, dit: DiT):
        super().__init__()
        for name, layer in lora_layers(dit).items():
            owner: nn.Module = self
            for part in name.split("."):
                if not hasattr(owner, part):
                    owner.add_module(part, nn.Module())
                owner = owner.get_submodule(part)
            owner.add_module("lora_A", layer.lora_A[NAME])
            owner.add_module("lora_B", layer.lora_B[NAME])


class StoredFloat8(nn.Linear):
    """A frozen Linear whose weight is kept in float8 and brought to the input's dtype while it is used.

    It saves memory, not time: the products are those of the input's dtype, forwards and on the way back.
    """

    def __init__(self, linear: nn.Linear):
        super().__init__(linear.in_features, linear.out_features, bias=False, device="meta")
        weight, scale = quantise_weight(linear.weight.detach())
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.register_buffer("scale", scale)
        self.bias = linear.bias

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  # the base class's name
        return _Float8Product.apply(input, self.weight, self.get_buffer("scale"), self.bias)  # type: ignore[no-any-return]


class _Float8Product(torch.autograd.Function):
    """A product with a stored weight, of which nothing but the float8 form is kept for the way back."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cuda", cast_inputs=None)
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        dtype = bias.dtype if bias is not None else x.dtype
        return F.linear(x.to(dtype), restored(weight, scale, dtype), bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = gradients
        weight, scale = ctx.saved_tensors
        return gradient @ restored(weight, scale, gradient.dtype), None, None, None


def restored(weight: Tensor, scale: Tensor, dtype: torch.dtype) -> Tensor:
    """A float8 weight `[out, in]` with its scales `[1, out]` in `dtype`."""
    return (weight.to(torch.float32) * scale.T).to(dtype)


def store_in_float8_(model: Adapted) -> None:
    """Keep the weights of the Linears that have low-rank weights in float8, one copy for both trees."""
    for name, layer in lora_layers(model.dit).items():
        stored = StoredFloat8(layer.base_layer)
        layer.base_layer = stored
        model.base.set_submodule(name, stored)
