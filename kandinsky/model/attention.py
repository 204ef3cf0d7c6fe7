"""Attention backends: a table to which a backend is a row.

A backend takes `qkv: [tokens, 3, heads, head_dim]`, one sequence without a mask, and returns
`[tokens, heads, head_dim]`. `torch` is scaled_dot_product_attention as PyTorch chooses it and works everywhere; `cudnn`
is the same operation with cuDNN's kernel; `bounded` is our own, and `float8` our own in 8 bits, lossy. flash_attn is
imported only by its rows.

Which one runs a model is chosen in `attention_choice`. One that is named is taken, or refused with the reason.
"""

from collections.abc import Callable, Container, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.model import bounded, float8_attention
from kandinsky.model.bounded import Logits
from kandinsky.model.fused_support import why_not_fused
from kandinsky.model.grouping import Attend

MAX_ERROR = 5e-3
"""Relative, against float32: bfloat16's rounding of inputs, weights and output alone costs 0.0037 to 0.0039."""
Projected = Callable[..., Tensor]
"""Attention from a projection of one sequence, norms and RoPE included; takes what `operations.norm_rope` takes."""
Fit = Callable[[Logits], tuple[Attend, Projected | None]]
"""For a block's logits the fastest `attend`, and the same from a projection where there is that."""


def _no_scale(_head_dim: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Attention:
    """A backend.

    Args:
        name: of its row.
        attend: the callable, for logits of any size.
        query_scale: for a head_dim, what queries are to be multiplied with before their rounding.
        head_dims: those that it takes, if it is for GPUs alone: in bfloat16, from compute capability 8.0 on. None runs
            everywhere.
        fit: for a block's logits; None where `attend` is the fastest for all.
        attend_projected: see `Projected`; None where there is none.
        capabilities: CUDA compute capabilities of the only GPUs that run it; None is all from 8.0 on.
        max_error: relative, against float32; more than that of bfloat16 is lossy, and "auto" takes none that is.
    """

    name: str
    attend: Attend
    query_scale: Callable[[int], float] = _no_scale
    head_dims: Container[int] | None = None
    fit: Fit | None = None
    attend_projected: Projected | None = None
    capabilities: Container[tuple[int, int]] | None = None
    max_error: float = MAX_ERROR

    @property
    def lossy(self) -> bool:
        """Whether it is not as exact as bfloat16 allows."""
        return self.max_error > MAX_ERROR

    @property
    def label(self) -> str:
        """Name, and where it is fitted to larger logits, which of its callables: what a choice depends on."""
        fits_all = self.fit is None or self.attend is self.fit(Logits(0.0, 0.0))[0]
        return self.name if fits_all else f"{self.name}:{getattr(self.attend, '__name__', 'any')}"

    def for_logits(self, logits: Logits) -> "Attention":
        """The backend for a block with such logits."""
        if self.fit is None:
            return self
        attend, projected = self.fit(logits)
        return replace(self, attend=attend, attend_projected=projected)


def torch_sdpa(qkv: Tensor) -> Tensor:
    """PyTorch's scaled_dot_product_attention with the kernel that it chooses."""
    query, key, value = qkv.permute(1, 2, 0, 3).unsqueeze(1)  # each [1, heads, tokens, head_dim]
    return F.scaled_dot_product_attention(query, key, value)[0].transpose(0, 1)


def cudnn_sdpa(qkv: Tensor) -> Tensor:
    """scaled_dot_product_attention restricted to cuDNN's kernel."""
    with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
        return torch_sdpa(qkv)


def flash_attention_2(qkv: Tensor) -> Tensor:
    """flash_attn 2 on the packed buffer."""
    from flash_attn import flash_attn_qkvpacked_func  # pyright: ignore[reportMissingImports]

    return flash_attn_qkvpacked_func(qkv[None])[0]


def flash_attention_3(qkv: Tensor) -> Tensor:
    """flash_attn 3 (Hopper) on the packed buffer."""
    from flash_attn_interface import flash_attn_qkvpacked_func  # pyright: ignore[reportMissingImports]

    return flash_attn_qkvpacked_func(qkv[None])[0]


TORCH = Attention("torch", torch_sdpa)
BOUNDED = Attention("bounded", bounded.attend_any, bounded.query_scale, (bounded.HEAD_DIM,), bounded.fit)
FLOAT8 = Attention(
    "float8",
    bounded.attend_any,
    bounded.query_scale,
    (bounded.HEAD_DIM,),
    float8_attention.fit,
    capabilities=((9, 0),),
    max_error=float8_attention.MAX_ERROR,
)
BACKENDS: Mapping[str, Attention] = MappingProxyType(
    {
        backend.name: backend
        for backend in (
            TORCH,
            Attention("cudnn", cudnn_sdpa, head_dims=range(8, 129, 8)),
            BOUNDED,
            FLOAT8,
            Attention("flash_attn_2", flash_attention_2, head_dims=range(8, 257, 8)),
            Attention("flash_attn_3", flash_attention_3, head_dims=range(8, 257, 8)),
        )
    }
)
CAPABILITY = (8, 0)
"""CUDA compute capability from which on there is bfloat16, without which those for GPUs do not run."""
_PACKAGES = {
    "bounded": "triton",
    "float8": "triton",
    "flash_attn_2": "flash_attn",
    "flash_attn_3": "flash_attn_interface",
}


def attention_of(name: object) -> Attention | None:
    """The backend called `name`; None for "auto", which is measured where the model is.

    Raises:
        ValueError: it does not exist or its package is not installed; names what is allowed, or what to install.
    """
    if name == "auto":
        return None
    if not isinstance(name, str) or name not in BACKENDS:
        raise ValueError(f"attention={name!r}: allowed are 'auto', {', '.join(map(repr, BACKENDS))}")
    if not _is_installed(BACKENDS[name]):
        package = _PACKAGES[name]
        raise ValueError(
            f"attention={name!r} needs the package {package}, which is not installed; 'auto' works without it"
        )
    return BACKENDS[name]


def _is_installed(backend: Attention) -> bool:
    package = _PACKAGES.get(backend.name)
    return package is None or find_spec(package) is not None


def check_device(wanted: Attention | None, *, device: torch.device, dtype: torch.dtype) -> None:
    """Refuse a backend that does not run on a device, or not in a dtype.

    Raises:
        ValueError: says what is needed and what is there.
    """
    if wanted is None or wanted.head_dims is None:
        return
    found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if found is None or found < CAPABILITY or dtype != torch.bfloat16:
        what = f"{dtype} on {device}" + ("" if found is None else f", which has {found[0]}.{found[1]}")
        needed = ".".join(map(str, CAPABILITY))
        raise ValueError(
            f"attention={wanted.name!r} needs bfloat16 on a CUDA device of compute capability {needed} or newer, "
            f"this is {what}; 'torch' and 'auto' run everywhere"
        )
    if wanted.capabilities is not None and found not in wanted.capabilities:
        raise ValueError(
            f"attention={wanted.name!r} runs on Hopper GPUs alone (compute capability 9.0), {device} has "
            f"{found[0]}.{found[1]}; 'auto' takes the fastest that is exact"
        )


def check_head_dim(wanted: Attention | None, head_dim: int) -> None:
    """Refuse a backend whose kernel does not take heads of this size.

    Raises:
        ValueError: names the size.
    """
    if wanted is not None and not _takes(wanted, head_dim):
        raise ValueError(f"attention={wanted.name!r} takes no heads of {head_dim} channels, which this DiT has")


def _takes(backend: Attention, head_dim: int) -> bool:
    return backend.head_dims is None or head_dim in backend.head_dims


def runs(backend: Attention, *, device: torch.device, dtype: torch.dtype, head_dim: int) -> bool:
    """Whether a backend may run a model on a device, as far as can be told without trying."""
    try:
        check_device(backend, device=device, dtype=dtype)
    except ValueError:
        return False
    return _takes(backend, head_dim) and _is_installed(backend)


def candidates(
    *, device: torch.device, dtype: torch.dtype, head_dim: int, logits: Logits, triton: bool = True
) -> list[Attention]:
    """What may run a model on a device, as far as can be told without trying; arguments of `choose_attention`."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return [TORCH]
    found = [
        other for other in BACKENDS.values() if not other.lossy and _is_installed(other) and _takes(other, head_dim)
    ]
    if why_not_fused(device) or not (triton or bounded.without_triton(device)):
        found = [other for other in found if other is not BOUNDED]
    return [other.for_logits(logits) for other in found]
