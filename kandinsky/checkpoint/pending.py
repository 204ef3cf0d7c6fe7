"""Parts of a model set that were saved and are not in their places yet (see `replace_set`)."""

from pathlib import Path

SAVED = ".saved"
"""A folder in that of the model set: what stands in it goes before what stands beside it."""


def place_of(folder: Path, name: str) -> Path:
    """Where the part `name` of the model set in `folder` is, or would be."""
    saved = folder / SAVED / name
    return saved if saved.exists() else folder / name


def lasting(part: Path) -> Path:
    """Where a part, found with `place_of`, will be when all are in their places: what may be written down of it."""
    return part.parent.parent / part.name if part.parent.name == SAVED else part
