"""Compiled kernels, and whatever else takes long to make, from one process to the next."""

from functools import partial

import pytest

from kandinsky.loading.kept import KINDS, kept
from kandinsky.model import nvrtc

CODE = b"machine code"
kept_as_code = partial(kept, kind="code")


def never() -> bytes:
    raise AssertionError("is not to be compiled")


def only(folder):
    (file,) = folder.iterdir()
    return file


def test_what_was_compiled_is_found_again(tmp_path):
    folder = tmp_path / "new" / "code"
    assert kept_as_code("a", lambda: CODE, folder=folder) == CODE
    assert kept_as_code("a", never, folder=folder) == CODE
    assert kept_as_code("b", lambda: b"other", folder=folder) == b"other"
    assert kept_as_code("a", never, folder=folder) == CODE


@pytest.mark.parametrize(
    "damage", [lambda content: content[:-1], lambda content: content[:32], lambda content: b"x" + content[1:]]
)
def test_what_is_damaged_is_compiled_again(damage, tmp_path):
    kept_as_code("a", lambda: CODE, folder=tmp_path)
    file = only(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    assert kept_as_code("a", lambda: b"again", folder=tmp_path) == b"again"
    assert kept_as_code("a", never, folder=tmp_path) == b"again"


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path):
    (tmp_path / "file").write_text("no folder")
    assert kept_as_code("a", lambda: CODE, folder=tmp_path / "file") == CODE


def test_what_does_not_compile_is_not_kept(tmp_path):
    def fails():
        raise RuntimeError("does not compile")

    with pytest.raises(RuntimeError, match="does not compile"):
        kept_as_code("a", fails, folder=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_is_source_macros_and_cuda(tmp_path, monkeypatch):
    """As NVRTC would be asked, which is not there."""
    asked = []
    monkeypatch.setattr(nvrtc, "_kept", [])
    monkeypatch.setattr(nvrtc, "_compile", lambda *arguments: asked.append(arguments) or CODE)
    assert nvrtc.compile_source(b"source", "a.cu", {"KEYS": 128}) == CODE
    nvrtc.keep_code(lambda key, make: kept_as_code(key, make, folder=tmp_path))
    for source, macros in ((b"source", {"KEYS": 128}), (b"source", {"KEYS": 64}), (b"other", {"KEYS": 64})):
        for _ in range(2):
            assert nvrtc.compile_source(source, "a.cu", macros) == CODE
    assert len(asked) == 4
    monkeypatch.setattr("torch.version.cuda", "99.9")
    nvrtc.compile_source(b"source", "a.cu", {"KEYS": 128})
    assert len(asked) == 5


@pytest.mark.parametrize(("kind", "ending"), KINDS.items())
def test_each_kind_has_a_folder_in_the_users_cache(kind, ending, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert kept("a", lambda: CODE, kind=kind) == CODE
    (file,) = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert (file.parent.name, file.suffix) == (kind, ending)
    assert kept("a", never, kind=kind) == CODE
