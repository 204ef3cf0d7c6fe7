"""Timing and the card's own ceilings, for the scripts beside this one.

Times are medians over device events after a warm-up; the spread is the distance from the fastest to the slowest.
"""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from kandinsky.model.attention import BACKENDS, Attention

CUDA = torch.device("cuda", 0)


@dataclass(frozen=True)
class Timing:
    """Milliseconds, and the work that was done in them."""

    median: float
    spread: float
    tflop: float = 0.0

    @property
    def tflops(self) -> float:
        """TFLOP/s."""
        return self.tflop / self.median * 1e3

    def __str__(self) -> str:
        rate = f"{self.tflops:8.0f} TFLOP/s" if self.tflop else ""
        return f"{self.median:9.3f} ms  +-{self.spread / 2:7.3f}{rate}"


def measure(run: Callable[[], object], *, tflop: float = 0.0, repeats: int = 9, warm_up: int = 2) -> Timing:
    """Time `run` on the current device."""
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return Timing(statistics.median(times), max(times) - min(times), tflop)


def peak_gib(run: Callable[[], object]) -> float:
    """GiB allocated at most while `run` runs."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() / 2**30


def gemm_ceiling(rows: int, model_dim: int, ff_dim: int) -> Timing:
    """The four bfloat16 products of one transformer block, through PyTorch."""
    shapes = ((model_dim, 3 * model_dim), (model_dim, model_dim), (model_dim, ff_dim), (ff_dim, model_dim))
    inputs = {width: torch.randn(rows, width, device=CUDA, dtype=torch.bfloat16) for width in (model_dim, ff_dim)}
    weights = [torch.randn(out, width, device=CUDA, dtype=torch.bfloat16) for width, out in shapes]

    def run() -> None:
        for (width, _), weight in zip(shapes, weights, strict=True):
            inputs[width] @ weight.T

    return measure(run, tflop=sum(2 * rows * width * out for width, out in shapes) / 1e12)


def attention_inputs(tokens: int, heads: int, head_dim: int = 64) -> Tensor:
    """Normalised random queries and keys, random values, float32 `[tokens, 3, heads, head_dim]`."""
    qkv = torch.randn(tokens, 3, heads, head_dim, device=CUDA)
    qkv[:, :2] = torch.nn.functional.layer_norm(qkv[:, :2], (head_dim,))
    return qkv


def attention_timing(backend: Attention, qkv: Tensor) -> tuple[Timing, float]:
    """Time of a backend, and its relative error against float32 (first and last head, first and last 2,048 queries)."""
    tokens, _, heads, head_dim = qkv.shape
    scaled = qkv.clone()
    scaled[:, 0] *= backend.query_scale(head_dim)
    scaled = scaled.bfloat16()
    output = backend.attend(scaled)
    rows = torch.cat((torch.arange(2048, device=CUDA), torch.arange(tokens - 2048, tokens, device=CUDA)))
    difference, reference = [], []
    for head in (0, heads - 1):
        query, key, value = qkv[:, :, head].unbind(1)
        expected = (query[rows] @ key.T / head_dim**0.5).softmax(-1) @ value
        difference.append(output[rows, head].float() - expected)
        reference.append(expected)
    error = torch.cat(difference).norm() / torch.cat(reference).norm()
    tflop = 4 * tokens**2 * heads * head_dim / 1e12
    return measure(lambda: backend.attend(scaled), tflop=tflop), error.item()


def attention_table(tokens: int, heads: int) -> dict[str, tuple[Timing, float]]:
    """Every backend that runs here."""
    qkv, table = attention_inputs(tokens, heads), {}
    for name, backend in BACKENDS.items():
        try:
            table[name] = attention_timing(backend, qkv)
        except (ImportError, RuntimeError) as error:
            print(f"  attention {name}: does not run here ({str(error).splitlines()[0]})")
    return table
