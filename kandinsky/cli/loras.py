"""`--lora` of the commands: files of low-rank weights, and how much of each; and those that a record names."""

import argparse
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kandinsky.output.record import Record
    from kandinsky.pipeline import Kandinsky4T2VPipeline


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


@dataclass(frozen=True)
class RecordedLora:
    """Low-rank weights that a record names, and the file that has them here."""

    name: str
    file: str | os.PathLike[str]
    weight: float


def recorded_loras(record: "Record", given: Iterable[str | os.PathLike[str]]) -> list[RecordedLora]:
    """The low-rank weights that a record names, in its order, each with its file among those that were given.

    Raises:
        ValueError: one is missing; the message names its fingerprint.
    """
    from kandinsky.checkpoint.lora import lora_fingerprint

    if record.origin is None or not record.origin.loras:
        return []
    files = {lora_fingerprint(Path(file)): file for file in given}
    found = []
    for name, mark in record.origin.loras.items():
        weight = float(record.origin.lora_weights[name])
        if mark not in files:
            raise ValueError(
                f"it was made with the LoRA {name!r} ({mark}) at {weight:g}, which is not among the files of --lora; "
                "name its file with --lora FILE"
            )
        found.append(RecordedLora(name, files[mark], weight))
    return found


def merge_recorded_(pipe: "Kandinsky4T2VPipeline", loras: Sequence[RecordedLora]) -> None:
    """Merge them, at once, under the names that they had: one file may have had two of them."""
    for each in loras:
        pipe.load_lora_weights(each.file, adapter_name=each.name, weight=0)
    if loras:
        pipe.use_adapters({each.name: each.weight for each in loras})
