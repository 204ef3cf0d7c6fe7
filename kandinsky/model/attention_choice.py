"""Which attention runs a model: the one that was named, the one of a precision, or the fastest that is right here.

Candidates are tried on random input against PyTorch's float32 attention. One that raises anything, or is off by more
than it may be, is not taken.
"""

import logging
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.model import bounded, float8_attention
from kandinsky.model.attention import BOUNDED, FLOAT8, TORCH, Attention, candidates, runs, torch_sdpa
from kandinsky.model.bounded import Logits
from kandinsky.model.fused_support import first_line
from kandinsky.model.grouping import Attend

_log = logging.getLogger(__name__)
CHECK_TOKENS, CHECK_HEADS = 4173, 16
"""Input of the self-check: large enough to rank kernels, and with a ragged tail."""
Pick = Callable[[list[Attention]], Attention]
"""Of candidates, the one that is taken."""


def choose_attention(
    wanted: Attention | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    logits: Logits,
    triton: bool = True,
    pick: Pick | None = None,
) -> Attention:
    """The backend that is wanted, or where none is the fastest on `device`.

    Args:
        wanted: one that `check_device` and `check_head_dim` let pass.
        logits: the largest of any block.
        triton: whether "auto" may take a kernel of Triton's.
        pick: chooses of those that may run where none is wanted; None measures them (`fastest`).

    Raises:
        ValueError: the wanted backend cannot run this model, as only its weights tell.
    """
    if wanted is not None:
        return wanted
    found = candidates(device=device, dtype=dtype, head_dim=head_dim, logits=logits, triton=triton)
    if len(found) == 1:
        return found[0]
    return fastest(found, device=device, head_dim=head_dim) if pick is None else pick(found)


def unasked(
    backend: Attention | None,
    *,
    device: torch.device,
    dtype: torch.dtype,
    head_dim: int,
    logits: Logits,
    tokens: int = CHECK_TOKENS,
) -> Attention | None:
    """A backend that a precision prefers, if it runs here and is as right as it should be; else None.

    Args:
        backend: None where nothing is preferred.
        device, dtype, head_dim, logits: as `choose_attention` takes them.
        tokens: of the input that it is tried on.
    """
    if backend is None or not runs(backend, device=device, dtype=dtype, head_dim=head_dim):
        return None
    run = {"head_dim": head_dim, "tokens": tokens, "measure": lambda *_: 0.0}  # it has nobody to be faster than
    (trial,) = trials([backend.for_logits(logits)], device=device, **run)
    if trial.milliseconds is None:
        _log.warning("attention %r is not taken: %s", backend.name, trial.error)
        return None
    return backend


def prepare(wanted: Attention | None, *, device: torch.device, dtype: torch.dtype) -> None:
    """Make ready what will be needed, beside other work: our own kernel, where it may be chosen.

    Args:
        wanted: the backend that was named or that the precision prefers; None will be measured.
        device, dtype: of the model.
    """
    if wanted not in (None, BOUNDED, FLOAT8) or device.type != "cuda" or dtype != torch.bfloat16:
        return
    ours = wanted is FLOAT8 and runs(FLOAT8, device=device, dtype=dtype, head_dim=bounded.HEAD_DIM)
    (float8_attention if ours else bounded).prepare(device)


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
    times = {trial.backend.name: trial.error if trial.milliseconds is None else trial.milliseconds for trial in tried}
    _log.info("attention, ms: %s", times)
    return tried


def _try(backend: Attention, qkv: Tensor, reference: Tensor, measure: Callable[[Attend, Tensor], float]) -> Trial:
    scaled = qkv.clone()
    scaled[:, 0] *= backend.query_scale(qkv.shape[-1])
    scaled = scaled.bfloat16()
    try:
        forms = dict.fromkeys(
            (backend.attend, backend.for_logits(Logits(0.0, 0.0)).attend)
        )  # of the largest logits and the least
        error = max(_error(attend(scaled), reference) for attend in forms)
        if not error <= backend.max_error:
            _log.warning("attention backend %r is off by %.2g here and is not used", backend.name, error)
            return Trial(backend, error=f"off by {error:.2g}")
        return Trial(backend, milliseconds=measure(backend.attend, scaled))
    except Exception as failure:  # noqa: BLE001  # Triton, compilers and drivers each have their own, see `trial`
        _log.info("attention backend %r does not run here: %s", backend.name, failure)
        return Trial(backend, error=first_line(failure), passing=isinstance(failure, torch.OutOfMemoryError))


def _error(output: Tensor, reference: Tensor) -> float:
    error = (output.float() - reference).norm() / reference.norm()
    return error.nan_to_num(math.inf).item()  # max() passes over what is not a number
