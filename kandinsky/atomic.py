"""Files and folders that appear only when they are complete: the only way in which this library writes.

What is being made stands beside its target under a hidden name, `.NAME-XXXXXXXX.partial.ENDING`, and then takes the
target's place in one step. A process that is killed leaves such a file behind; the next one with the same target
removes it. Reports, which are only ever appended to, are the exception (see `batch.report`).
"""

import glob
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

STALE = 3600.0
"""Seconds without a change after which a partial file counts as abandoned. Any that is being written changes at least
every few seconds; a process's number would tell nothing on a folder that several machines share."""


class Partial:
    """A file or folder on its way to `target`: made at `path`, then put in its place by `commit`.

    A folder takes the place of nothing or of an empty folder only, unless `over_folder`. Both methods may be called
    again and after each other; only the first call does something.

    Args:
        target: where it goes.
        over_folder: a folder with files in it may be replaced. It is out of its place for a moment, in which a killed
            process leaves neither there.
    """

    def __init__(self, target: Path, *, over_folder: bool = False):
        self.target = target
        self.path = _partial_path(target)
        self._over_folder = over_folder
        self._open = True

    def commit(self) -> None:
        """Let it take the target's place.

        Raises:
            OSError: it cannot; what stood there still does.
        """
        if self._open:
            if self._over_folder and self.target.is_dir():
                self._replace_folder()
            else:
                os.replace(self.path, self.target)
            self._open = False

    def _replace_folder(self) -> None:
        aside = _partial_path(self.target)
        os.replace(self.target, aside)
        try:
            os.replace(self.path, self.target)
        except BaseException:
            os.replace(aside, self.target)
            raise
        remove(aside)

    def discard(self) -> None:
        """Remove it, if it did not take the target's place."""
        if self._open:
            self._open = False
            remove(self.path)


@contextmanager
def replacing(target: Path, *, over_folder: bool = False) -> Iterator[Path]:
    """A path to make a file or folder at; it takes `target`'s place if the body succeeds, and is removed if not.

    Args:
        target: where it goes.
        over_folder: see `Partial`.
    """
    partial = Partial(target, over_folder=over_folder)
    try:
        yield partial.path
        partial.commit()
    finally:
        partial.discard()


def write_text(target: Path, text: str) -> None:
    """Write a small file in UTF-8."""
    with replacing(target) as path:
        path.write_text(text, encoding="utf-8")


def create_new(target: Path, write: Callable[[Path], object], *, ending: str) -> Path:
    """Write a file at `target`, or with `-2`, `-3`, ... before its ending where one stands: nothing is replaced.

    Args:
        write: makes the file at the path that it is given.
        ending: of the target, with its dots.

    Returns:
        Where the file is.
    """
    stem = target.name.removesuffix(ending)
    partial = Partial(target)
    try:
        write(partial.path)
        for number in count(1):
            path = target if number == 1 else target.with_name(f"{stem}-{number}{ending}")
            if _put_if_free(partial, path):
                return path
        raise AssertionError
    finally:
        partial.discard()


def _put_if_free(partial: Partial, path: Path) -> bool:
    """Put the file at `path` unless something is there, also if another process looks at the same moment."""
    try:
        os.link(partial.path, path)
    except FileExistsError:
        return False
    except (OSError, AttributeError, NotImplementedError):  # a file system without hard links
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        try:
            os.replace(partial.path, path)
        except BaseException:
            path.unlink(missing_ok=True)  # the empty file that held the name
            raise
    return True


def short(stem: str) -> str:
    """As much of a file's name as leaves room for what we add, of the 255 bytes that file systems allow."""
    return stem.encode()[:160].decode(errors="ignore")


def remove_partials(target: Path) -> None:
    """Remove what killed processes left incomplete of `target`; no process may be writing it."""
    for found in _partials(target):
        remove(found)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_at_once(folder: Path) -> None:
    """Remove a folder so that no half of it ever stands under its name."""
    aside = _partial_path(folder)
    os.replace(folder, aside)
    remove(aside)


def _partial_path(target: Path) -> Path:
    """A hidden name beside `target`, with its ending; abandoned ones are removed."""
    for found in _partials(target):
        _remove_abandoned(found)
    before, after = _around(target)
    return target.with_name(f"{before}{uuid.uuid4().hex[:8]}{after}")


def _partials(target: Path) -> Iterator[Path]:
    before, after = (glob.escape(part) for part in _around(target))
    return target.parent.glob(f"{before}{'?' * 8}{after}")


def _around(target: Path) -> tuple[str, str]:
    """What stands before and after the eight random characters of a hidden name."""
    return f".{short(target.stem)}-", f".partial{target.suffix}"


def _remove_abandoned(path: Path) -> None:
    try:
        if time.time() - path.stat().st_mtime < STALE:
            return
        remove(path)
    except OSError:  # someone else's, or just gone: not what this run is about
        return
