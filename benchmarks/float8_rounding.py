"""What each rounding of 8-bit attention costs, worked out on a CPU as Hopper's tensor cores do, for one head.

    python benchmarks/float8_rounding.py
    python benchmarks/float8_rounding.py --size tiny --device cpu     # to try the benchmark itself

Queries, keys and values are random, without a common part: they average out to nothing, which leaves their rounding.
That is the worst case; `offset` gives each channel a mean of its own. Norms' weights are 1, 2, 4 and 8, or 1 and one
channel of 6. A float8 product of 32 keys is added up as it was found to be on an H100 (docs/benchmarks.md): all addends
are cut off 13 bits behind the first bit of the largest, and so is their sum. Errors are relative to float64, `bias` is
how much too large results are. The limit is the same attention with bfloat16 operands. Nothing is timed. The last line
is JSON.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from script import finish, machine, parser_of
from torch import Tensor
from torch.nn import functional as F

FLOAT8 = torch.float8_e4m3fn
BITS, STEP, TOP = 13, 32, 7
"""Bits behind the first of an accumulator, keys of a product, log2 of a row's largest weight at most."""
SIZES = {"full": (25_424, 24), "tiny": (300, 3)}
"""Keys, queries."""
SCALE = math.log2(math.e) / 8


@dataclass(frozen=True)
class Input:
    """Weights of the norms, a mean for each channel, one channel's own weight."""

    weight: float
    offset: float = 0.0
    outlier: float | None = None


@dataclass(frozen=True)
class Rounding:
    """What is rounded, and how.

    Args:
        logits: "float64", "bfloat16", "float16", "e4m3" or "int8" queries and keys, and "keys less their mean" or
            "rotated" behind them; logits are float16 behind float16 ones.
        weights: "exact", "e4m3", "bytes" as `hopper_float8.cu` has them, or these "corrected" towards the exponential.
        values: "exact" or "e4m3".
        summed: keys that the tensor cores sum up, 0 for all; None is exact.
    """

    logits: str = "float64"
    weights: str = "exact"
    values: str = "exact"
    summed: int | None = None


INPUTS = (Input(1.0), Input(1.0, offset=1.0), Input(2.0), Input(4.0), Input(8.0), Input(1.0, outlier=6.0))
ROUNDINGS = (
    Rounding("bfloat16"),
    Rounding("e4m3"),
    Rounding("e4m3, keys less their mean"),
    Rounding("e4m3, rotated"),
    Rounding("int8"),
    Rounding("int8, rotated"),
    Rounding("float16"),
    Rounding(weights="e4m3"),
    Rounding(weights="bytes"),
    Rounding(weights="corrected"),
    Rounding(values="e4m3"),
    Rounding("e4m3", "e4m3", "e4m3", 0),
    Rounding("e4m3", "e4m3", "e4m3", 512),
    Rounding("e4m3", "e4m3", "e4m3", 256),
    Rounding("e4m3", "e4m3", "e4m3", 128),
    Rounding("e4m3", "bytes", "e4m3", 128),
    Rounding("int8", "e4m3", "e4m3", 128),
    Rounding("float16", "e4m3", "e4m3", 128),
    Rounding("float16", "bytes", "e4m3", 128),
)


def drawn(case: Input, size: str) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, float64; queries are scaled to logits in units of log2."""
    keys, queries = SIZES[size]
    generator = torch.Generator().manual_seed(0)
    qkv = torch.randn(3, keys, 64, generator=generator)
    qkv += case.offset * torch.randn(3, 1, 64, generator=generator)
    qk = F.layer_norm(qkv[:2], (64,)) * case.weight
    if case.outlier is not None:
        qk[..., 9] *= case.outlier / case.weight
    return qk[0, :queries].double() * SCALE, qk[1].double(), qkv[2].double()


def hadamard(size: int) -> Tensor:
    """An orthogonal matrix of equal magnitudes."""
    matrix = torch.ones(1, 1, dtype=torch.float64)
    while len(matrix) < size:
        matrix = torch.cat((torch.cat((matrix, matrix), 1), torch.cat((matrix, -matrix), 1)))
    return matrix / math.sqrt(size)


def float8(x: Tensor) -> Tensor:
    """Rounded; what is too large becomes the format's largest."""
    return x.clamp(-448, 448).to(FLOAT8).double()


def logits_of(query: Tensor, key: Tensor, kind: str) -> Tensor:
    """Products of rounded operands."""
    if kind == "float64":
        return query @ key.T
    query, key = query.bfloat16().double(), key.bfloat16().double()
    if "mean" in kind:
        key = key - key.mean(0)
    if "rotated" in kind:
        query, key = query @ hadamard(64), key @ hadamard(64)
    if kind.startswith("e4m3"):
        return float8(query * 2) @ float8(key / 2).T
    if kind.startswith("int8"):  # a scale for each query, one for all keys
        scales = query.abs().amax(1, keepdim=True) / 127, key.abs().max() / 127
        return (query / scales[0]).round() @ (key / scales[1]).round().T * scales[0] * scales[1]
    if kind == "float16":
        return (query.half().double() @ key.half().double().T).half().double()
    return query @ key.T


def weights_of(logits: Tensor, kind: str) -> Tensor:
    """2^logits up to a factor for each row, rounded."""
    x = logits - logits.amax(1, keepdim=True).ceil() + TOP
    if kind in ("exact", "e4m3"):
        return x.exp2() if kind == "exact" else float8(x.exp2())
    binades = (x + 7).clamp_min(0)
    if kind == "corrected":
        distance = (binades - binades.round()).abs()
        binades = binades - 0.344 * distance * (1 - distance)
    return (8 * binades).round().to(torch.uint8).view(FLOAT8).double()


def cut(x: Tensor, unit: Tensor) -> Tensor:
    """Towards zero, to a multiple of `unit`."""
    return (x / unit).trunc() * unit


def unit_of(x: Tensor) -> Tensor:
    """What the last kept bit of x is worth."""
    return torch.exp2(torch.frexp(x.abs().clamp_min(1e-30))[1] - 1.0 - BITS)


def summed_up(weights: Tensor, values: Tensor, keys: int) -> Tensor:
    """weights @ values as the tensor cores sum it up, `keys` at a time, and float32 between them."""
    total = torch.zeros(len(weights), values.shape[1])
    part = torch.zeros_like(total)
    for start in range(0, len(values), STEP):
        products = weights[:, None, start : start + STEP] * values.T[None, :, start : start + STEP]
        unit = unit_of(torch.maximum(products.abs().amax(-1), part.abs()))
        part = cut(products, unit[..., None]).sum(-1) + cut(part, unit)
        part = cut(part, unit_of(part))
        if keys and (start + STEP) % keys == 0:
            total, part = total + part, torch.zeros_like(part)
    return (total + part).double()


def error_of(drawing: tuple[Tensor, Tensor, Tensor], rounding: Rounding) -> tuple[float, float]:
    """Relative error and bias."""
    query, key, value = drawing
    expected = (query @ key.T * math.log(2)).softmax(-1) @ value
    weights = weights_of(logits_of(query, key, rounding.logits), rounding.weights)
    rounded = float8(value) if rounding.values == "e4m3" else value
    with_ones = torch.cat((rounded, torch.ones_like(rounded[:, :1])), 1)
    if rounding.summed is None:
        result = weights @ with_ones
    else:
        result = summed_up(weights.float(), with_ones.float(), rounding.summed)
    out = result[:, :-1] / result[:, -1:]
    bias = (out * expected).sum() / expected.square().sum() - 1
    return ((out - expected).norm() / expected.norm()).item(), bias.item()


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser_of(__doc__, devices=("cpu",)).parse_args(arguments)
    rows = []
    for case in INPUTS:
        drawing = drawn(case, given.size)
        for rounding in ROUNDINGS:
            error, bias = error_of(drawing, rounding)
            print(f"{case}   {rounding}: error {error:.4f} bias {bias:+.4f}", flush=True)
            rows.append({"input": vars(case), "rounding": vars(rounding), "error": error, "bias": bias})
    finish({**machine(torch.device("cpu")), "size": given.size, "rows": rows}, given)


if __name__ == "__main__":
    main()
