"""Reading by several threads, with a device that is the CPU."""

import os

import pytest
import torch
from safetensors.torch import save_file

from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.gpu_copy import FileSource, MappedSource, OpenFile, read_all

CHUNK = 1000
TENSORS = {
    "large": torch.randn(77, 31),
    "half": torch.randn(500, 3).bfloat16(),
    "one": torch.tensor(3),
    "none": torch.zeros(0, 4),
}
"""Larger than a chunk, smaller, and without an element."""


def targets():
    return {name: torch.empty_like(value) for name, value in TENSORS.items()}


def test_files_arrive_whole(tmp_path):
    save_file(TENSORS, tmp_path / "t.safetensors")
    entries = safetensors_file.read_header(tmp_path / "t.safetensors").entries
    found, read = targets(), []
    file = OpenFile(tmp_path / "t.safetensors")
    jobs = [(FileSource(file, entries[name].start, None), found[name]) for name in TENSORS]
    read_all(jobs, chunk_bytes=CHUNK, on_bytes=read.append)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())
    assert sum(read) == sum(value.nbytes for value in TENSORS.values())
    assert max(read) == CHUNK


def test_without_preadv_files_arrive_whole(tmp_path, monkeypatch):
    """As on Windows; duplicates of a file share its position there, so threads take turns."""
    monkeypatch.delattr(os, "preadv")
    monkeypatch.setattr(OpenFile, "again", lambda file: OpenFile(os.dup(file.fileno())))
    test_files_arrive_whole(tmp_path)


def test_mapped_tensors_arrive_whole():
    found = targets()
    read_all([(MappedSource(value), found[name]) for name, value in TENSORS.items()], chunk_bytes=CHUNK)
    assert all(torch.equal(found[name], value) for name, value in TENSORS.items())


def test_nothing_to_read():
    told = []
    read_all([], on_bytes=told.append)
    assert told == []


def test_a_file_that_ends_too_soon_is_an_error(tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(bytes(5000))
    with pytest.raises(EOFError, match="cut ends at byte 5000, within a tensor"):
        read_all([(FileSource(OpenFile(path), 0, None), torch.empty_like(TENSORS["large"]))], chunk_bytes=CHUNK)


def test_another_file_of_the_name_is_not_read(tmp_path):
    path = tmp_path / "t"
    path.write_bytes(TENSORS["half"].view(torch.uint8).numpy().tobytes())
    source = FileSource(OpenFile(path), 0, None)
    (tmp_path / "other").write_bytes(bytes(5000))
    (tmp_path / "other").replace(path)
    found = torch.empty_like(TENSORS["half"])
    read_all([(source, found)])
    assert torch.equal(found, TENSORS["half"])


@pytest.mark.parametrize("kind", ["file", "mapped"])
def test_samples(tmp_path, kind):
    value = TENSORS["large"]
    content = value.flatten().view(torch.uint8)
    (tmp_path / "t").write_bytes(bytes(8) + content.numpy().tobytes())
    source = MappedSource(value) if kind == "mapped" else FileSource(OpenFile(tmp_path / "t"), 8, None)
    rows = torch.empty(3, 10, dtype=torch.uint8)
    source.sample([0, 5, value.nbytes - 10], rows)
    assert torch.equal(rows, torch.stack([content[:10], content[5:15], content[-10:]]))


@pytest.mark.filterwarnings("error")
def test_files_are_closed_without_a_word(tmp_path):
    (tmp_path / "t").touch()
    file = OpenFile(tmp_path / "t")
    number = file.fileno()
    del file
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(number)
