"""Attention backends: a table to which a backend is a row.

A backend takes `qkv: [tokens, 3, heads, head_dim]`, one sequence without a mask, and returns
`[tokens, heads, head_dim]`. `torch` is scaled_dot_product_attention as PyTorch chooses it and works everywhere; `cudnn`
is the same operation with cuDNN's kernel; `bounded` is our own, and `float8` our own with softmax's weights and values
in 8 bits, lossy. flash_attn is imported only by its rows.

Where no backend is wanted ("auto") the candidates of a device are measured once, on random input, and the fastest that
agrees with PyTorch's float32 attention is taken. One that is named is taken, or refused with the reason.
"""

import logging
import math
from collections.abc import Callable, Container, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from types import MappingProxyType

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from kandinsky.model import bounded, float8_attention
from kandinsky.model.fused_support import first_line, why_not_fused
from kandinsky.model.grouping import Attend

_log = logging.getLogger(__name__)
MAX_ERROR = 5e-3
"""Relative, against float32: bfloat16's rounding of inputs, weights and output alone costs 0.0037 to 0.0039."""
CHECK_TOKENS, CHECK_HEADS = 4173, 16
"""Input of the self-check: large enough to rank kernels, and with a ragged tail."""


def _no_scale(_head_dim: int) -> float:
    return 1.0


@dataclass(frozen=True)
class Attention:
    """A backend.

    Args:
        name: of its row.
        attend: the callable, for logits of any size.
        attend_for: for a bound of |logits|, in units of log2, the fastest one; None where `attend` is.
        attend_projected: `attend` from a projection of one sequence, norms and RoPE included, where there is one; takes
            what `operations.norm_rope` takes.
        capabilities: CUDA compute capabilities of the only GPUs that run it; None is all from 8.0 on.
        lossy: not as exact as bfloat16 allows; "auto" takes none that is.
        query_scale: for a head_dim, what queries are to be multiplied with before their rounding.
        head_dims: those that it takes, if it is for GPUs alone: in bfloat16, from compute capability 8.0 on. None runs
            everywhere.
    """

    name: str
    attend: Attend
    query_scale: Callable[[int], float] = _no_scale
    head_dims: Container[int] | None = None
    attend_for: Callable[[float], Attend] | None = None
    attend_projected: Callable[..., Tensor] | None = None
    capabilities: Container[tuple[int, int]] | None = None
    lossy: bool = False

    @property
    def label(self) -> str:
        """Name, and where it is fitted to larger logits, which of its callables: what a choice depends on."""
        fits_all = self.attend_for is None or self.attend is self.attend_for(0.0)
        return self.name if fits_all else f"{self.name}:{getattr(self.attend, '__name__', 'any')}"

    def for_logits(self, bound: float) -> "Attention":
        """The backend for a block whose |logits| are at most `bound`, in units of log2."""
        attend = self.attend if self.attend_for is None else self.attend_for(bound)
        projected = self.attend_projected if attend is self.attend else None
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
BOUNDED = Attention("bounded", bounded.attend_any, bounded.query_scale, (bounded.HEAD_DIM,), bounded.attend_for)
FLOAT8 = Attention(
    "float8",
    float8_attention.attend,
    bounded.query_scale,
    (bounded.HEAD_DIM,),
    float8_attention.attend_for,
    float8_attention.attend_projected,
    capabilities=((9, 0),),
    lossy=True,
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


Pick = Callable[[list[Attention]], Attention]
"""Of candidates, the one that is taken."""


def choose_attention(
    wanted: Attention | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    bound: float,
    triton: bool = True,
    pick: Pick | None = None,
) -> Attention:
    """The backend that is wanted, or where none is the fastest on `device`.

    Args:
        wanted: one that `check_device` and `check_head_dim` let pass.
        bound: largest possible |logit| of any block, in units of log2 (see `bounded.logit_bound`).
        triton: whether "auto" may take a kernel of Triton's.
        pick: chooses of those that may run where none is wanted; None measures them (`fastest`).

    Raises:
        ValueError: the wanted backend cannot run this model, as only its weights tell.
    """
    if wanted is not None:
        return wanted
    found = candidates(device=device, dtype=dtype, head_dim=head_dim, bound=bound, triton=triton)
    if len(found) == 1:
        return found[0]
    return fastest(found, device=device, head_dim=head_dim) if pick is None else pick(found)


def candidates(
    *, device: torch.device, dtype: torch.dtype, head_dim: int, bound: float, triton: bool = True
) -> list[Attention]:
    """What may run a model on a device, as far as can be told without trying; arguments of `choose_attention`."""
    if device.type != "cuda" or dtype != torch.bfloat16:
        return [TORCH]
    found = [
        other for other in BACKENDS.values() if not other.lossy and _is_installed(other) and _takes(other, head_dim)
    ]
    if why_not_fused(device) or not (triton or bounded.without_triton(device)):
        found = [other for other in found if other is not BOUNDED]
    return [other.for_logits(bound) for other in found]


def prepare(wanted: Attention | None, *, device: torch.device, dtype: torch.dtype) -> None:
    """Make ready what `choose_attention` will need, beside other work: our own kernel, where it may be chosen."""
    if wanted in (None, BOUNDED, FLOAT8) and device.type == "cuda" and dtype == torch.bfloat16:
        (bounded if wanted is not FLOAT8 else float8_attention).prepare(device)


def median_ms(attend: Attend, qkv: Tensor, *, repeats: int = 5) -> float:
    """Milliseconds of one call on the current CUDA device."""
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        attend(qkv)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[repeats // 2]


@dataclass(frozen=True)
class Trial:
    """What came of trying a backend.

    Args:
        backend: that was tried.
        milliseconds: of a call; None if it is not to be used.
        error: why not.
        passing: it may run another time: there was too little memory.
    """

    backend: Attention
    milliseconds: float | None = None
    error: str | None = None
    passing: bool = False


def fastest(
    backends: list[Attention],
    *,
    device: torch.device,
    head_dim: int,
    tokens: int = CHECK_TOKENS,
    measure: Callable[[Attend, Tensor], float] = median_ms,
) -> Attention:
    """The fastest that agrees with float32 attention on fresh random input; `torch` if none does; see `trials`."""
    return best_of(trials(backends, device=device, head_dim=head_dim, tokens=tokens, measure=measure))


def best_of(tried: list[Trial]) -> Attention:
    """The fastest of those that ran and were right; `torch` if none did."""
    times = {trial.backend: trial.milliseconds for trial in tried if trial.milliseconds is not None}
    return min(times, key=lambda backend: times[backend], default=TORCH)


def trials(
    backends: list[Attention],
    *,
    device: torch.device,
    head_dim: int,
    tokens: int = CHECK_TOKENS,
    measure: Callable[[Attend, Tensor], float] = median_ms,
) -> list[Trial]:
    """Try backends on fresh random input against float32 attention.

    Args:
        backends: at least one.
        head_dim: size of a head.
        tokens: of the input.
        measure: (backend, qkv) -> milliseconds.
    """
    generator = torch.Generator(device)  # of its own: the caller's random state is left alone
    generator.seed()
    qkv = torch.randn(tokens, 3, CHECK_HEADS, head_dim, device=device, generator=generator)
    with torch.cuda.device(device) if device.type == "cuda" else nullcontext():
        qkv[:, :2] = F.layer_norm(qkv[:, :2], (head_dim,))
        reference = torch_sdpa(qkv)
        tried = [_try(backend, qkv, reference, measure) for backend in backends]
    times = {trial.backend.name: trial.milliseconds or trial.error for trial in tried}
    _log.info("attention, ms: %s", times)
    return tried


def _try(backend: Attention, qkv: Tensor, reference: Tensor, measure: Callable[[Attend, Tensor], float]) -> Trial:
    scaled = qkv.clone()
    scaled[:, 0] *= backend.query_scale(qkv.shape[-1])
    scaled = scaled.bfloat16()
    try:
        forms = dict.fromkeys((backend.attend, backend.for_logits(0.0).attend))  # of the largest logits and the least
        error = max(_error(attend(scaled), reference) for attend in forms)
        if not error <= MAX_ERROR:
            _log.warning("attention backend %r is off by %.2g here and is not used", backend.name, error)
            return Trial(backend, error=f"off by {error:.2g}")
        return Trial(backend, milliseconds=measure(backend.attend, scaled))
    except Exception as failure:  # noqa: BLE001  # Triton, compilers and drivers each have their own, see `trial`
        _log.info("attention backend %r does not run here: %s", backend.name, failure)
        return Trial(backend, error=first_line(failure), passing=isinstance(failure, torch.OutOfMemoryError))


def _error(output: Tensor, reference: Tensor) -> float:
    error = (output.float() - reference).norm() / reference.norm()
    return error.nan_to_num(math.inf).item()  # max() passes over what is not a number
