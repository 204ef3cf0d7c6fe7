"""Pointers of git-LFS say what they are."""

import pytest
from checkpoint_helpers import POINTER

from kandinsky.checkpoint.pointer import check_no_pointer
from kandinsky.errors import CheckpointError


def test_pointers_are_told_from_files(tmp_path):
    (tmp_path / "pointer").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"pointer is a pointer of git-LFS, .* `git lfs pull`"):
        check_no_pointer(tmp_path / "pointer")
    for content in ("", "version", POINTER[1:]):
        (tmp_path / "file").write_text(content)
        check_no_pointer(tmp_path / "file")
