"""Pointers of git-LFS: small texts in the place of large files, where a repository was cloned without these."""

from pathlib import Path

from kandinsky.errors import CheckpointError

BEGINNING = b"version https://git-lfs"


def check_no_pointer(path: Path) -> None:
    """Refuse a pointer.

    Raises:
        CheckpointError: it is one; the message says what to do.
    """
    with path.open("rb") as file:
        found = file.read(len(BEGINNING))
    if found == BEGINNING:
        raise CheckpointError(f"{path} is a pointer of git-LFS, not the file itself: fetch that with `git lfs pull`")
