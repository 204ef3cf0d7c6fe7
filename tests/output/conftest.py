"""What tests of output share: disks on which nothing finds room."""

import errno
import os
import tempfile
from pathlib import Path

import pytest


@pytest.fixture
def full_disks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file can be put in its place; the folder for temporary files and the user's home are `tmp_path`."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "link", full)
    monkeypatch.setattr(os, "replace", full)
