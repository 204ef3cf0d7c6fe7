"""Files that appear only when they are complete.

What is being made stands beside its target under a hidden name, `.NAME-XXXXXXXX.partial.ENDING`, and then takes the
target's place in one step. A process that is killed leaves such a file behind; the next one with the same target
removes it.
"""

import glob
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STALE = 3600.0
"""Seconds without a change after which a partial file counts as abandoned. Any that is being written changes at least
every few seconds; a process's number would tell nothing on a folder that several machines share."""


def short(stem: str) -> str:
    """As much of a file's name as leaves room for what we add, of the 255 bytes that file systems allow."""
    return stem.encode()[:160].decode(errors="ignore")


def partial_path(path: Path) -> Path:
    """A hidden name beside `path`, with its ending, for what is not yet complete; abandoned ones are removed."""
    for found in _partials(path):
        _remove_abandoned(found)
    before, after = _around(path)
    return path.with_name(f"{before}{uuid.uuid4().hex[:8]}{after}")


def remove_partials(path: Path) -> None:
    """Remove what killed processes left incomplete of `path`; no process may be writing it."""
    for found in _partials(path):
        remove(found)


def _partials(path: Path) -> Iterator[Path]:
    before, after = (glob.escape(part) for part in _around(path))
    return path.parent.glob(f"{before}{'?' * 8}{after}")


def _around(path: Path) -> tuple[str, str]:
    """What stands before and after the eight random characters of a hidden name."""
    return f".{short(path.stem)}-", f".partial{path.suffix}"


def _remove_abandoned(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime < STALE:
            return
        remove(path)
    except OSError:  # someone else's, or just gone: not what this run is about
        return


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to make a file or folder at; it takes `path`'s place if the body succeeds, and is removed if not.

    A folder takes the place of nothing or of an empty folder only.
    """
    partial = partial_path(path)
    try:
        yield partial
        os.replace(partial, path)
    finally:
        remove(partial)
