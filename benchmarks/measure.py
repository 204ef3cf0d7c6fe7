"""Timing and the device's own ceilings, for the scripts beside this one.

Times are medians after a warm-up, over CUDA events, or on a CPU over its clock; the spread is the distance from the
fastest to the slowest.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from kandinsky.loading.devices import default_dtype
from kandinsky.model.attention import BACKENDS, Attention
from kandinsky.model.bounded import Logits

CACHE_BYTES = 256 * 10**6
"""Written between cold runs: more than any GPU's second-level cache holds."""
CHECKED_QUERIES = 256
"""At either end of the sequence, for an attention's error."""


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


@dataclass(frozen=True)
class Kernel:
    """What a profile tells of one kernel, or on a CPU of one of PyTorch's operators: all its calls together."""

    name: str
    calls: int
    milliseconds: float


def measure(
    run: Callable[[], object],
    *,
    device: torch.device,
    tflop: float = 0.0,
    repeats: int = 9,
    warm_up: int = 2,
    cold: bool = False,
) -> Timing:
    """Time `run` on a device, which on a GPU is the current one.

    Args:
        tflop: of one run.
        cold: a GPU's cache holds nothing of the run before.
    """
    for _ in range(warm_up):
        run()
    cache = torch.empty(CACHE_BYTES, dtype=torch.uint8, device=device) if cold and device.type == "cuda" else None
    times = []
    for _ in range(repeats):
        if cache is not None:
            cache.zero_()
        times.append(_milliseconds(run, device))
    return Timing(statistics.median(times), max(times) - min(times), tflop)


def _milliseconds(run: Callable[[], object], device: torch.device) -> float:
    if device.type != "cuda":
        began = time.perf_counter()
        run()
        return (time.perf_counter() - began) * 1e3
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    run()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def synchronise(device: torch.device) -> None:
    """Wait for all that a GPU has been given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], object], device: torch.device) -> float:
    """Of one run as its caller sees it, once the device is done."""
    synchronise(device)
    start = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - start


def peak_gib(run: Callable[[], object], device: torch.device) -> float | None:
    """GiB allocated at most on a GPU while `run` runs; elsewhere nobody counts, and `run` does not run."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) / 2**30


def gib(peak: float | None) -> str:
    """A peak of memory, for people."""
    return "not counted" if peak is None else f"{peak:.2f} GiB"


def kernels(run: Callable[[], object], device: torch.device) -> list[Kernel]:
    """What one run consists of, the longest first."""
    cuda = device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if cuda else ProfilerActivity.CPU]) as profiler:
        run()
        synchronise(device)
    found = [
        Kernel(event.key, event.count, (event.self_device_time_total if cuda else event.self_cpu_time_total) / 1e3)
        for event in profiler.key_averages()
    ]
    return sorted(found, key=lambda kernel: -kernel.milliseconds)


def gemm_ceiling(rows: int, model_dim: int, ff_dim: int, device: torch.device) -> Timing:
    """The four products of one transformer block, through PyTorch, in the device's own dtype."""
    shapes = ((model_dim, 3 * model_dim), (model_dim, model_dim), (model_dim, ff_dim), (ff_dim, model_dim))
    place = {"device": device, "dtype": default_dtype(device)}
    inputs = {width: torch.randn(rows, width, **place) for width in (model_dim, ff_dim)}
    weights = [torch.randn(out, width, **place) for width, out in shapes]

    def run() -> None:
        for (width, _), weight in zip(shapes, weights, strict=True):
            torch.mm(inputs[width], weight.T)

    return measure(run, device=device, tflop=sum(2 * rows * width * out for width, out in shapes) / 1e12)


def attention_inputs(tokens: int, heads: int, device: torch.device, *, head_dim: int = 64) -> Tensor:
    """Normalised random queries and keys, random values, float32 `[tokens, 3, heads, head_dim]`."""
    qkv = torch.randn(tokens, 3, heads, head_dim, device=device)
    qkv[:, :2] = torch.nn.functional.layer_norm(qkv[:, :2], (head_dim,))
    return qkv


def attention_timing(backend: Attention, qkv: Tensor) -> tuple[Timing, float]:
    """Time of a backend, and its relative error against float32 for the first and last 256 queries of each head."""
    tokens, _, heads, head_dim = qkv.shape
    scaled = qkv.clone()
    scaled[:, 0] *= backend.query_scale(head_dim)
    scaled = scaled.bfloat16()
    output = backend.attend(scaled)
    edge = min(CHECKED_QUERIES, tokens // 2)
    rows = torch.cat((torch.arange(edge), torch.arange(tokens - edge, tokens))).to(qkv.device)
    difference, reference = [], []
    for head in range(heads):
        query, key, value = qkv[:, :, head].unbind(1)
        expected = (query[rows] @ key.T / head_dim**0.5).softmax(-1) @ value
        difference.append(output[rows, head].float() - expected)
        reference.append(expected)
    error = torch.cat(difference).norm() / torch.cat(reference).norm()
    tflop = 4 * tokens**2 * heads * head_dim / 1e12
    return measure(lambda: backend.attend(scaled), device=qkv.device, tflop=tflop), error.item()


def norm_of(weight: float, outlier: float, large: int, device: torch.device) -> torch.nn.LayerNorm:
    """A LayerNorm over 64 channels whose weights are all the same but for `large` channels, each in another pair."""
    norm = torch.nn.LayerNorm(64, device=device).requires_grad_(False)
    norm.weight.fill_(weight)
    norm.weight[: 2 * large : 2] = outlier
    return norm


def attention_table(
    tokens: int,
    heads: int,
    device: torch.device,
    norm: torch.nn.LayerNorm | None = None,
    others: Mapping[str, Attention] = MappingProxyType({}),
) -> dict[str, tuple[Timing, float]]:
    """Every exact backend that runs here, fitted to a block.

    Args:
        tokens, heads: of the input.
        device: that it is on.
        norm: of the block's queries and keys; None has weights of 1.
        others: measured as well, as they are.
    """
    qkv, table = attention_inputs(tokens, heads, device), {}
    norm = norm or norm_of(1.0, 1.0, 0, device)
    qkv[:, :2] *= norm.weight
    logits = Logits.of(norm, norm)
    fitted = {name: backend.for_logits(logits) for name, backend in BACKENDS.items() if not backend.lossy}
    for name, backend in (fitted | dict(others)).items():
        try:
            table[name] = attention_timing(backend, qkv)
        except (ImportError, RuntimeError, ValueError) as error:
            print(f"  attention {name}: does not run here ({str(error).splitlines()[0]})")
    return table
