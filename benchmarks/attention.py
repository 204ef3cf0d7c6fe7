"""Attention by the weights of a block's query and key norms, and a step of the DiT with them, at full size.

    python benchmarks/attention.py
    python benchmarks/attention.py --size tiny --device cpu      # to try the benchmark itself

For norms whose weights are all 1, 2, 4 or 8, and for one channel of 30: median time and error against float32 of each
backend, as a block with such norms takes it. Then what the operands of 8-bit attention cost, and a step: exact with
norms of 1, 2 and 4 and with one block of 8; fast with and without 8-bit attention, and how far final latents are from
exact ones. The last line is JSON. Needs one GPU with 60 GB; what needs one is left out on a CPU.
"""

from collections.abc import Sequence
from typing import Any

import torch
from measure import attention_inputs, attention_table, measure, norm_of
from random_parts import WORKLOADS, make_fast_, random_parts
from script import device_in, finish, machine, parser_of
from stages import Case, step_timing
from torch import Tensor

from kandinsky.model.attention import BACKENDS, FLOAT8
from kandinsky.pipeline import Kandinsky4T2VPipeline

NORMS = ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0), (1.0, 30.0))
"""Weight of all channels but one, and of that one."""
TOKENS = {"full": (25_424, 48), "tiny": (200, 2)}
"""Tokens and heads."""


def backends(size: str, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Milliseconds and error of each backend, by the norms' weights."""
    figures = {}
    for weight, outlier in NORMS:
        table = attention_table(*TOKENS[size], device, weight=weight, outlier=outlier, lossy=True)
        name = f"{weight:g}" if weight == outlier else f"{weight:g}, one channel {outlier:g}"
        for backend, (timing, error) in table.items():
            print(f"norms {name:20s} {backend:10s} {timing}   error {error:.5f}", flush=True)
        figures[name] = {backend: [timing.median, error] for backend, (timing, error) in table.items()}
    return figures


def operands(size: str, device: torch.device) -> dict[str, float]:
    """Milliseconds of norms and RoPE, of them with operands of 8-bit attention, and of all of that attention."""
    from kandinsky.model import float8_operands, hopper_float8, kernels

    tokens, heads = TOKENS[size]
    qkv, norm = attention_inputs(tokens, heads, device).bfloat16(), norm_of(1.0, 1.0, 64, device)
    rope = torch.randn(tokens, 32, 2, device=device)
    terms = (qkv, norm, norm, rope, 1.0)
    attend_projected = FLOAT8.attend_projected
    assert attend_projected is not None
    runs = {
        "norms and RoPE": lambda: kernels.norm_rope_(*terms),
        "the same, and operands": lambda: float8_operands.norm_rope_operands(*terms, dtype=hopper_float8.FORM.dtype),
        "operands of a normed projection": lambda: float8_operands.operands(qkv, dtype=hopper_float8.FORM.dtype),
        "all of 8-bit attention": lambda: attend_projected(*terms),
    }
    timings = {name: measure(run, device=device, tflop=0.0) for name, run in runs.items()}
    for name, timing in timings.items():
        print(f"{name:35s} {timing}", flush=True)
    return {name: timing.median for name, timing in timings.items()}


def set_norms_(case: Case, weight: float, blocks: slice = slice(None)) -> None:
    """The weights of some blocks' norms; each block is fitted to its own again."""
    for block in case.dit.blocks[blocks]:
        for norm in (block.self_attention.query_norm, block.self_attention.key_norm):
            norm.weight.fill_(weight)
    case.dit.attention = case.dit.attention


def steps(case: Case) -> dict[str, float]:
    """Milliseconds of an exact step, by norms."""
    figures = {}
    for name, weight, blocks in (
        ("1", 1.0, slice(None)),
        ("2", 2.0, slice(None)),
        ("4", 4.0, slice(None)),
        ("1 but one block of 8", 8.0, slice(0, 1)),
        ("1 again", 1.0, slice(None)),
    ):
        set_norms_(case, 1.0)
        set_norms_(case, weight, blocks)
        timing = step_timing(case)
        print(f"step, exact, norms {name:20s} {timing}", flush=True)
        figures[name] = timing.median
    return figures


def fast_steps(case: Case) -> dict[str, list[float]]:
    """Milliseconds of a fast step, and the relative difference of its final latents from exact ones, by attention."""
    text, figures = case.encode(), {}

    def latents() -> Tensor:
        return case.pipe.sample(text, case.shape, seed=1)

    exact, chosen = latents(), case.dit.attention
    make_fast_(case.dit)
    for backend in (chosen, FLOAT8):
        case.dit.attention = BACKENDS[backend.name]
        timing = step_timing(case)
        difference = ((latents() - exact).norm() / exact.norm()).item()
        print(f"step, fast, {backend.name:10s} {timing}   latents differ by {difference:.4f}", flush=True)
        figures[backend.name] = [timing.median, difference]
    return figures


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    given = parser_of(__doc__).parse_args(arguments)
    device = device_in(given)
    figures: dict[str, Any] = {**machine(device), "size": given.size, "backends": backends(given.size, device)}
    on_hopper = device.type == "cuda" and torch.cuda.get_device_capability(device) == (9, 0)
    if on_hopper:
        figures["operands_ms"] = operands(given.size, device)
    case = Case(given.size, Kandinsky4T2VPipeline(random_parts(given.size, device)), WORKLOADS[given.size].shape())
    figures["step_ms"] = steps(case)
    if on_hopper:
        figures["fast"] = fast_steps(case)
    finish(figures, given)


if __name__ == "__main__":
    main()
