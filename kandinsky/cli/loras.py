"""`--lora` of the commands: files of low-rank weights, and how much of each."""

import argparse
import os
from pathlib import Path


def add_lora_argument(parser: argparse.ArgumentParser) -> None:
    """`--lora`; see `loras_of`."""
    parser.add_argument(
        "--lora",
        action="append",
        type=os.path.expanduser,
        metavar="FILE[:WEIGHT]",
        help="low-rank weights to be merged, a .safetensors file or PEFT's folder; may be given several times",
    )


def loras_of(parsed: argparse.Namespace) -> dict[str | os.PathLike[str], float]:
    """Weight of each file of low-rank weights; 1 where none is said.

    Raises:
        ValueError: a file is named twice, or is not there.
    """
    found: dict[str | os.PathLike[str], float] = {}
    for given in parsed.lora or ():
        path, _, weight = given.rpartition(":")
        try:
            path, amount = (path, float(weight)) if path else (given, 1.0)
        except ValueError:
            path, amount = given, 1.0
        if path in found:
            raise ValueError(f"--lora {path}: is given twice")
        if not Path(path).exists():
            raise ValueError(f"--lora {given}: there is no file or folder {path!r}")
        found[path] = amount
    return found
