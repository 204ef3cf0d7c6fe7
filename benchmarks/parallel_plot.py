"""Draws what `parallel.py` measured: the speed-up of the whole request over GPUs. Needs matplotlib.

    python benchmarks/parallel_plot.py docs/parallel.json parallel.png

Measures nothing itself, so it has none of the other scripts' arguments and no line of JSON.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def speedups(rows: Sequence[Mapping[str, Any]]) -> dict[tuple[str, str], list[tuple[int, float]]]:
    """(GPUs, times one GPU) of each mode and precision that one GPU was measured in, in the order of GPUs."""
    alone = {row["precision"]: row for row in rows if row["gpus"] == 1}
    lines: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in sorted(rows, key=lambda row: row["gpus"]):
        if row["gpus"] > 1 and row["precision"] in alone:
            line = lines.setdefault((row["mode"], row["precision"]), [(1, 1.0)])
            line.append((row["gpus"], alone[row["precision"]]["request"] / row["request"]))
    return lines


def plot(rows: Sequence[Mapping[str, Any]], target: Path) -> None:
    from matplotlib import pyplot as plt  # pyright: ignore[reportMissingImports]

    figure, axes = plt.subplots(figsize=(6, 4))
    counts = sorted({row["gpus"] for row in rows})
    axes.plot([1, counts[-1]], [1, counts[-1]], color="0.7", label="as many times as GPUs")
    for (mode, precision), line in speedups(rows).items():
        style = "-" if precision == "exact" else "--"
        axes.plot(*zip(*line, strict=True), style, marker="o", label=f"{mode}, {precision}")
    axes.set(xlabel="GPUs", ylabel="prompt to mp4, times one GPU", xticks=counts)
    axes.legend()
    figure.savefig(target, dpi=150, bbox_inches="tight")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("json", type=Path, help="that parallel.py wrote")
    parser.add_argument("picture", type=Path, help="to draw")
    given = parser.parse_args(arguments)
    plot(json.loads(given.json.read_text(encoding="utf-8"))["rows"], given.picture)


if __name__ == "__main__":
    main()
