"""Attention by the weights of a block's query and key norms, and a step of the DiT with them, at full size.

    python benchmarks/attention.py
    python benchmarks/attention.py --size tiny --device cpu      # to try the benchmark itself

For norms whose weights are all 1, 2, 4 or 8, and for norms with a few larger channels: median time and error against
float32 of each backend, as a block with such norms takes it, and on Hopper of 8-bit attention with queries and keys in
float16 and in e4m3, whatever a block would take. Then 8-bit attention by its parts, from a projection on, and a step
by the norms: exact, and fast with exact and with 8-bit attention, with how far final latents are from exact ones. The
limit of the last is in docs/benchmarks.md: another exact kernel. The last line is JSON. Needs one GPU with 60 GB; what
needs one is left out on a CPU.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from measure import attention_inputs, attention_table, measure, norm_of
from random_parts import WORKLOADS, make_fast_, random_parts
from script import device_in, finish, machine, parser_of
from stages import Case, step_timing
from torch import Tensor

from kandinsky.model import bounded, float8_attention
from kandinsky.model.attention import BOUNDED, FLOAT8, Attention
from kandinsky.model.bounded import Logits
from kandinsky.pipeline import Kandinsky4T2VPipeline

NORMS = {
    "1": (1.0, 1.0, 0),
    "2": (2.0, 2.0, 0),
    "4": (4.0, 4.0, 0),
    "8": (8.0, 8.0, 0),
    "1, one channel 6": (1.0, 6.0, 1),
    "1, one channel 30": (1.0, 30.0, 1),
    "0.63, one channel 1.55": (0.632, 1.548, 1),
    "0.72, 4 channels 1.44": (0.718, 1.436, 4),
    "0.53, 16 channels 1.30": (0.529, 1.297, 16),
}
"""Weight of most channels, of the others, and how many these are. The last three just allow e4m3 queries and keys."""
STEPS = {"1": 1.0, "2": 2.0, "4": 4.0}
"""Norms of the blocks whose steps are measured."""
TOKENS = {"full": (25_424, 48), "tiny": (200, 2)}
"""Tokens and heads."""
DTYPES = {"float16": torch.float16, "e4m3": torch.float8_e4m3fn}
"""Of queries and keys in 8-bit attention."""


def eight_bits(device: torch.device) -> Mapping[str, Attention]:
    """8-bit attention in both of its forms, where it runs."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) != (9, 0):
        return {}
    attend = float8_attention.attend
    return {
        f"float8, {name}": replace(FLOAT8, attend=partial(attend, dtype=dtype), fit=None)
        for name, dtype in DTYPES.items()
    }


def backends(size: str, device: torch.device) -> dict[str, Any]:
    """Milliseconds and error of each backend by the norms' weights, and what 8-bit attention takes there."""
    figures: dict[str, Any] = {}
    for name, (weight, outlier, large) in NORMS.items():
        norm = norm_of(weight, outlier, large, device)
        table = attention_table(*TOKENS[size], device, norm, eight_bits(device))
        for backend, (timing, error) in table.items():
            print(f"norms {name:22s} {backend:16s} {timing}   error {error:.5f}", flush=True)
        figures[name] = {backend: [timing.median, error] for backend, (timing, error) in table.items()}
    return figures


def taken(device: torch.device) -> dict[str, str]:
    """Which form of 8-bit attention a block takes, by its norms."""
    found = {}
    for name, (weight, outlier, large) in NORMS.items():
        norm = norm_of(weight, outlier, large, device)
        attend = FLOAT8.for_logits(Logits.of(norm, norm)).attend
        found[name] = str(attend.keywords["dtype"]) if isinstance(attend, partial) else "exact"
        print(f"norms {name:22s} 8-bit attention: {found[name]}")
    return found


def parts(size: str, device: torch.device) -> dict[str, float]:
    """Milliseconds of attention from a projection on, by its parts; needs a Hopper GPU."""
    from kandinsky.model import float8_operands, hopper_float8, kernels

    tokens, heads = TOKENS[size]
    qkv, norm = attention_inputs(tokens, heads, device).bfloat16(), norm_of(1.0, 1.0, 0, device)
    terms = (qkv, norm, norm, torch.randn(tokens, 32, 2, device=device), bounded.query_scale(64))
    runs: dict[str, Callable[[], object]] = {
        "norms and RoPE": lambda: kernels.norm_rope_(*terms),
        "bounded attention, with these": lambda: bounded.attend_bounded(kernels.norm_rope_(*terms)),
    }
    for name, dtype in DTYPES.items():
        made = float8_operands.operands(qkv, dtype=dtype)
        runs |= {
            f"{name}: norms, RoPE and operands": partial(float8_operands.norm_rope_operands, *terms, dtype=dtype),
            f"{name}: operands of normed": partial(float8_operands.operands, qkv, dtype=dtype),
            f"{name}: 8-bit attention alone": partial(hopper_float8.launch, made.queries_keys, made.values),
            f"{name}: 8-bit attention, with all": partial(float8_attention.attend_projected, *terms, dtype=dtype),
        }
    timings = {name: measure(run, device=device) for name, run in runs.items()}
    for name, timing in timings.items():
        print(f"{name:35s} {timing}", flush=True)
    return {name: timing.median for name, timing in timings.items()}


def set_norms_(case: Case, weight: float, attention: Attention) -> None:
    """The weights of all blocks' norms, and the attention that is fitted to them."""
    for block in case.dit.blocks:
        for norm in (block.self_attention.query_norm, block.self_attention.key_norm):
            norm.weight.fill_(weight)
    case.dit.attention = attention


def exact_steps(case: Case, text: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Milliseconds of an exact step, and final latents, by norms."""
    figures, latents, chosen = {}, {}, case.dit.attention
    for name, weight in STEPS.items():
        set_norms_(case, weight, chosen)
        timing = step_timing(case, repeats=3)
        print(f"step, exact, norms {name:8s} {timing}", flush=True)
        figures[name], latents[name] = timing.median, case.pipe.sample(text, case.shape, seed=1)
    return figures, latents


def fast_steps(case: Case, text: Tensor, exact: Mapping[str, Tensor]) -> dict[str, list[float]]:
    """Milliseconds of a fast step, and the relative difference of its final latents from exact ones."""
    figures = {}
    make_fast_(case.dit)
    for name, weight in STEPS.items():
        for backend in (BOUNDED, FLOAT8):
            set_norms_(case, weight, backend)
            timing, latents = step_timing(case, repeats=3), case.pipe.sample(text, case.shape, seed=1)
            difference = ((latents - exact[name]).norm() / exact[name].norm()).item()
            print(f"step, fast, norms {name:8s} {backend.name:8s} {timing}   latents differ by {difference:.4f}")
            figures[f"{name}, {backend.name}"] = [timing.median, difference]
    return figures


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    given = parser_of(__doc__).parse_args(arguments)
    device = device_in(given)
    figures: dict[str, Any] = {**machine(device), "size": given.size, "float8": taken(device)}
    figures["backends"] = backends(given.size, device)
    if eight_bits(device):
        figures["parts_ms"] = parts(given.size, device)
    case = Case(given.size, Kandinsky4T2VPipeline(random_parts(given.size, device)), WORKLOADS[given.size].shape())
    text = case.encode()
    figures["step_ms"], exact = exact_steps(case, text)
    if eight_bits(device):
        figures["fast"] = fast_steps(case, text, exact)
    finish(figures, given)


if __name__ == "__main__":
    main()
