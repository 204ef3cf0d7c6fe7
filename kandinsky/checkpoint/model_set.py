"""A model set's own small configuration, `model_set.json` beside its weights: what it was trained for.

Without the file weights are taken for the published set. Read strictly: every key is needed, no other is allowed.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from kandinsky.atomic import write_text
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.pending import place_of
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.errors import CheckpointError

NAME = "model_set.json"
KEYS = ("resolution", "sizes", "max_seconds", "text_tokens", "fps")


def read_model_set(folder: Path) -> ModelSet | None:
    """The model set that `folder` declares; None if it declares none.

    Raises:
        CheckpointError: the file is not what it should be; the message names it and the key.
    """
    file = place_of(folder, NAME)
    if not file.is_file():
        return None
    values = json_of(file, what="a model set")
    if not isinstance(values, dict) or sorted(values) != sorted(KEYS):
        raise CheckpointError(f"{file}: allowed and needed are the keys {', '.join(KEYS)}; found {_shown(values)}")
    sizes = values.pop("sizes")
    for name, value in values.items():
        if not _whole(value):
            raise CheckpointError(f"{file}: {name}={value!r}: allowed is a whole number from 1")
    return dataclasses.replace(FLASH_512, **values, sizes=_sizes(sizes, file))


def write_model_set(folder: Path, model_set: ModelSet) -> None:
    """Declare what the weights in `folder` were trained for.

    Raises:
        ValueError: it has something of its own that the file does not hold.
    """
    check_declarable(model_set)
    values = {name: getattr(model_set, name) for name in KEYS}
    values["sizes"] = [f"{width}x{height}" for width, height in model_set.sizes]
    write_text(folder / NAME, json.dumps(values, indent=1) + "\n")


def check_declarable(model_set: ModelSet) -> None:
    """Refuse a model set that would not come back as it is.

    Raises:
        ValueError: names what the file does not hold.
    """
    for name, published in dataclasses.asdict(FLASH_512).items():
        if name not in KEYS and getattr(model_set, name) != published:
            raise ValueError(f"{name}={getattr(model_set, name)!r}: {NAME} cannot declare other than {published!r}")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _sizes(sizes: Any, file: Path) -> tuple[tuple[int, int], ...]:
    """Width and height of each size, multiples of what one token covers."""
    step = FLASH_512.spatial_compression * 2
    found = [_size(size) for size in sizes] if isinstance(sizes, list) else []
    if not found or any(size is None or any(x < 1 or x % step for x in size) for size in found):
        raise CheckpointError(f"{file}: sizes={sizes!r}: allowed are texts like '672x384', of multiples of {step}")
    return tuple(size for size in found if size is not None)


def _size(size: Any) -> tuple[int, int] | None:
    """Width and height of a text like "672x384", or of a pair [height, width], as files had it before."""
    if isinstance(size, str) and (match := re.fullmatch(r"(\d{1,5})x(\d{1,5})", size)):
        return int(match[1]), int(match[2])
    if isinstance(size, list) and len(size) == 2 and all(map(_whole, size)):
        return size[1], size[0]
    return None


def _shown(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, dict) else repr(values)
