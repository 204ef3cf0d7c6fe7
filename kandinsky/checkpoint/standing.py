"""Whether a component's files stand: whether all are there and complete that its loader would read.

Headers, indices and configurations are read, weights are not.
"""

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kandinsky.checkpoint.folder import visible_files, weight_files
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.pointer import check_no_pointer
from kandinsky.checkpoint.safetensors_file import read_header
from kandinsky.errors import CheckpointError

NEEDED = {
    "text_encoder": ("config.json", "*.safetensors"),
    "vae": ("config.json", "*.safetensors"),
    "tokenizer": ("spiece.model",),
    "scheduler": ("scheduler_config.json",),
}
"""What has to be in a component's folder."""
ZIP = b"PK\x03\x04"
"""How a `.pt` file begins."""


@dataclass(frozen=True)
class Faults:
    """What is wrong with a component, a line for each file.

    Args:
        missing: files that are not there.
        damaged: files that are there, but not whole or not what they should be.
    """

    missing: tuple[str, ...] = ()
    damaged: tuple[str, ...] = ()

    @property
    def all(self) -> tuple[str, ...]:
        """Both, what is missing first."""
        return (*self.missing, *self.damaged)


def faults_of(name: str, path: Path) -> Faults:
    """What keeps a component from being loaded, as far as it can be told without reading weights.

    Args:
        name: of the component, a key of `NEEDED` or "dit".
        path: its folder, or the DiT's file.
    """
    missing: list[str] = []
    damaged: list[str] = []
    for check, file in _checks(name, path):
        try:
            check(file)
        except FileNotFoundError as error:
            missing.append(str(error))
        except CheckpointError as error:
            damaged.append(str(error))
    return Faults(tuple(missing), tuple(damaged))


def _checks(name: str, path: Path) -> list[tuple[Callable[[Path], None], Path]]:
    """Functions that raise what is wrong, each with what it looks at."""
    if name == "dit":
        return [(check_weight_file, path)]
    if not path.is_dir():
        return [(check_small_file, path)]
    small = [needed for needed in NEEDED[name] if "*" not in needed]
    if name == "tokenizer":
        small += [file for file in visible_files(path) if file.endswith(".json")]
    checks = [(check_small_file, path / file) for file in small]
    return [*checks, (check_weights, path)] if "*.safetensors" in NEEDED[name] else checks


def check_small_file(file: Path) -> None:
    """Look whether a configuration or a tokenizer's model is there, and is not another thing.

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it is empty, a pointer, or by its name JSON and is none.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    if not file.stat().st_size:
        raise CheckpointError(f"{file} is empty")
    check_no_pointer(file)
    if file.suffix == ".json":
        json_of(file, what="a configuration")


def check_weights(folder: Path) -> None:
    """Look whether all files of a model's weights are there and have the sizes that their headers say.

    Raises:
        FileNotFoundError: one is not there.
        CheckpointError: one is cut or no such file, or it is not clear which are meant.
    """
    damaged = []
    for file in weight_files(folder).files:
        try:
            check_weight_file(file)
        except CheckpointError as error:
            damaged.append(str(error))
    if damaged:
        raise CheckpointError("; ".join(damaged))


def check_weight_file(file: Path) -> None:
    """Look whether a file of weights is there and whole.

    Raises:
        FileNotFoundError: it is not there.
        CheckpointError: it is empty, cut, or a pointer.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is not there")
    check_no_pointer(file)
    size = file.stat().st_size
    if file.suffix == ".safetensors":
        expected = read_header(file).size
        if size != expected:
            raise CheckpointError(f"{file} is truncated: it has {size} of {expected} bytes")
        return
    with file.open("rb") as opened:
        begins = opened.read(len(ZIP))
    # What does not begin as an archive may be a file of the user's own: its loader says what it thinks of it.
    if not begins or (begins == ZIP and not zipfile.is_zipfile(file)):
        raise CheckpointError(f"{file} is truncated: it has {size} bytes and no end of an archive")
