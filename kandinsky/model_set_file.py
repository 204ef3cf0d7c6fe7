"""A model set's own small configuration, `model_set.json` beside its weights: what it was trained for.

Without the file weights are taken for the published set. Read strictly: every key is needed, no other is allowed.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from kandinsky.config import FLASH_512, ModelSet

NAME = "model_set.json"
KEYS = ("resolution", "sizes", "max_seconds", "text_tokens", "fps")


def read_model_set(folder: Path) -> ModelSet | None:
    """The model set that `folder` declares; None if it declares none.

    Raises:
        ValueError: the file is not what it should be; the message names it and the key.
    """
    file = folder / NAME
    if not file.is_file():
        return None
    try:
        values = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: not JSON: {error}") from None
    if not isinstance(values, dict) or sorted(values) != sorted(KEYS):
        raise ValueError(f"{file}: allowed and needed are the keys {', '.join(KEYS)}; found {_shown(values)}")
    sizes = values.pop("sizes")
    for name, value in values.items():
        if not _whole(value):
            raise ValueError(f"{file}: {name}={value!r}: allowed is a whole number from 1")
    return dataclasses.replace(FLASH_512, **values, sizes=_sizes(sizes, file))


def write_model_set(folder: Path, model_set: ModelSet) -> None:
    """Declare what the weights in `folder` were trained for."""
    values = {name: getattr(model_set, name) for name in KEYS}
    (folder / NAME).write_text(json.dumps(values, indent=1) + "\n")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _sizes(sizes: Any, file: Path) -> tuple[tuple[int, int], ...]:
    """Pairs of height and width, multiples of what one token covers."""
    step = FLASH_512.spatial_compression * 2
    pairs = sizes if isinstance(sizes, list) else []
    if not pairs or not all(_is_pair(pair, step) for pair in pairs):
        raise ValueError(f"{file}: sizes={sizes!r}: allowed are pairs [height, width] of multiples of {step}")
    return tuple((height, width) for height, width in pairs)


def _is_pair(pair: Any, step: int) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and all(_whole(x) and x % step == 0 for x in pair)


def _shown(values: Any) -> str:
    return ", ".join(map(str, values)) if isinstance(values, dict) else repr(values)
