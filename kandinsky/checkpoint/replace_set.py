"""One model set in the place of another, as a whole: at any moment the folder holds the old one or the new one.

The same holds for some parts of a set, which take the places of those of their names. What is new is written into a
hidden folder within that of the set and becomes valid in one step, when this is renamed to `.saved`: its parts then go
before those that stand beside it (see `pending`). Only after that are the old parts removed and the new ones put in
their places, each in one step. A process that is killed before leaves the old set, one that is killed later the new
one; whoever writes into the folder next puts the rest in its place.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kandinsky.atomic import remove, replacing
from kandinsky.checkpoint.dit_file import forms_of
from kandinsky.checkpoint.model_set import NAME, read_model_set
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512

MODEL_FILES = (".safetensors", ".json", ".model", ".txt", ".bin", ".msgpack", ".h5")
"""Endings of what a component's folder holds of the model; other files in it (a licence, notes) are kept."""


@contextmanager
def replacing_set(folder: Path) -> Iterator[Path]:
    """A folder to write a model set into, or parts of one; it takes the place of that in `folder` if the body succeeds.

    What else is in `folder` stays. There has to be room for both sets.

    Args:
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
        _settle(folder)
        with replacing(folder / SAVED) as new:
            new.mkdir()
            yield new
        _settle(folder)


def settle(folder: Path) -> None:
    """Put what was saved in its place, if a process that did so was killed: before a part is written by itself."""
    if (folder / SAVED).is_dir():
        with _alone_in(folder):
            _settle(folder)


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Meanwhile other processes that ask for this wait. It leaves no file behind, as a lock in a file would."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    place = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems have none for folders
            fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _settle(folder: Path) -> None:
    """Put the parts in `.saved` in their places."""
    saved = folder / SAVED
    if not saved.is_dir():
        return
    declared = saved / NAME
    if declared.is_file() and read_model_set(folder) == FLASH_512:  # which is what a folder without the file has
        (folder / NAME).unlink(missing_ok=True)
        declared.unlink()
    for part in sorted(saved.iterdir()):
        place = folder / part.name
        if part.is_dir():
            _keep_others(place, part)
            remove(place)
        for form in forms_of(part.name):
            (folder / form).unlink(missing_ok=True)
        os.replace(part, place)
    saved.rmdir()


def _keep_others(old: Path, new: Path) -> None:
    """Move what is not of the model from a component's old folder to its new one."""
    if old.is_symlink() or not old.is_dir():
        return
    for path in sorted(old.iterdir()):
        if path.suffix not in MODEL_FILES and not path.name.startswith(".") and not (new / path.name).exists():
            os.replace(path, new / path.name)
