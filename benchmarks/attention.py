"""Attention by the weights of a block's query and key norms, and a step of the DiT with them, at full size.

    python benchmarks/attention.py
    python benchmarks/attention.py --size tiny --device cpu      # to try the benchmark itself

For norms whose weights are all 1, 2, 4 or 8, and for one channel of 30: median time and error against float32 of each
backend, as a block with such norms takes it. Then an exact step with norms of 1, 2 and 4, and with one block of 8. The
limit of a call is its products at the GPU's peak (`measure.py`). The last line is JSON. Needs one GPU with 60 GB, or a
CPU at tiny size.
"""

from collections.abc import Sequence
from typing import Any

import torch
from measure import attention_table
from random_parts import WORKLOADS, random_parts
from script import device_in, finish, machine, parser_of
from stages import Case, step_timing

from kandinsky.pipeline import Kandinsky4T2VPipeline

NORMS = ((1.0, 1.0), (2.0, 2.0), (4.0, 4.0), (8.0, 8.0), (1.0, 30.0))
"""Weight of all channels but one, and of that one."""
TOKENS = {"full": (25_424, 48), "tiny": (200, 2)}
"""Tokens and heads."""


def backends(size: str, device: torch.device) -> dict[str, dict[str, list[float]]]:
    """Milliseconds and error of each backend, by the norms' weights."""
    figures = {}
    for weight, outlier in NORMS:
        table = attention_table(*TOKENS[size], device, weight=weight, outlier=outlier)
        name = f"{weight:g}" if weight == outlier else f"{weight:g}, one channel {outlier:g}"
        for backend, (timing, error) in table.items():
            print(f"norms {name:20s} {backend:10s} {timing}   error {error:.5f}", flush=True)
        figures[name] = {backend: [timing.median, error] for backend, (timing, error) in table.items()}
    return figures


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


@torch.inference_mode()
def main(arguments: Sequence[str] | None = None) -> None:
    given = parser_of(__doc__).parse_args(arguments)
    device = device_in(given)
    figures: dict[str, Any] = {**machine(device), "size": given.size, "backends": backends(given.size, device)}
    case = Case(given.size, Kandinsky4T2VPipeline(random_parts(given.size, device)), WORKLOADS[given.size].shape())
    figures["step_ms"] = steps(case)
    finish(figures, given)


if __name__ == "__main__":
    main()
