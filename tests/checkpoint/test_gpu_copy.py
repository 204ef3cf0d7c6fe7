"""Reading by several threads, with a device that is the CPU."""

import pytest
import torch
from safetensors.torch import save_file

from kandinsky.checkpoint import gpu_copy as reading
from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.gpu_copy import FileSource, MappedSource, read_all


@pytest.fixture
def tensors(monkeypatch):
    """Larger than a chunk, smaller, and without an element."""
    monkeypatch.setattr(reading, "CHUNK_BYTES", 1000)
    return {
        "large": torch.randn(77, 31),
        "half": torch.randn(500, 3).bfloat16(),
        "one": torch.tensor(3),
        "none": torch.zeros(0, 4),
    }


def test_files_and_mapped_tensors_arrive_whole(tensors, tmp_path):
    save_file(tensors, tmp_path / "t.safetensors")
    entries = safetensors_file.read_header(tmp_path / "t.safetensors").entries
    targets = {name: torch.empty_like(value) for name, value in tensors.items()}
    read_all([(FileSource(tmp_path / "t.safetensors", entries[name].start, None), targets[name]) for name in tensors])
    assert all(torch.equal(targets[name], value) for name, value in tensors.items())
    again = {name: torch.empty_like(value) for name, value in tensors.items()}
    read_all([(MappedSource(value), again[name]) for name, value in tensors.items()])
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_nothing_to_read():
    told = []
    read_all([], on_bytes=told.append)
    assert told == []


def test_a_file_that_ends_too_soon_is_an_error(tensors, tmp_path):
    path = tmp_path / "cut"
    path.write_bytes(bytes(5000))
    with pytest.raises(EOFError, match="cut ends at byte 5000, within a tensor"):
        read_all([(FileSource(path, 0, None), torch.empty_like(tensors["large"]))])


def test_a_file_that_is_gone_is_an_error(tensors, tmp_path):
    with pytest.raises(FileNotFoundError):
        read_all([(FileSource(tmp_path / "gone", 0, None), torch.empty_like(tensors["large"]))])
