"""The safetensors format as we write and read it ourselves, beside the library's own."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint import safetensors_file
from kandinsky.errors import CheckpointError

TENSORS = {"a": torch.randn(3, 5).bfloat16(), "b": torch.arange(4), "c": torch.zeros(())}


def test_what_we_write_the_library_reads(tmp_path):
    layout = {name: (value.dtype, tuple(value.shape)) for name, value in TENSORS.items()}
    safetensors_file.write(tmp_path / "t.safetensors", layout, TENSORS.items(), metadata={"source": "x"})
    assert all(torch.equal(TENSORS[name], value) for name, value in load_file(tmp_path / "t.safetensors").items())
    header = safetensors_file.read_header(tmp_path / "t.safetensors")
    assert header.size == (tmp_path / "t.safetensors").stat().st_size
    assert header.metadata == {"source": "x"}
    assert header.entries["a"].shape == (3, 5)


def test_a_module(tmp_path):
    module = torch.nn.Linear(3, 2)
    safetensors_file.write_module(tmp_path / "m.safetensors", module.state_dict())
    assert all(torch.equal(load_file(tmp_path / "m.safetensors")[k], v) for k, v in module.state_dict().items())


@pytest.mark.parametrize("dtype", list(safetensors_file.DTYPES.values()))
def test_dtypes_are_those_of_the_library(tmp_path, dtype):
    save_file({"a": torch.zeros(2).to(dtype)}, tmp_path / "t.safetensors")
    assert safetensors_file.read_header(tmp_path / "t.safetensors").entries["a"].dtype == dtype


def test_a_failure_leaves_what_stood_there(tmp_path):
    def tensors():
        yield "a", torch.ones(2)
        raise OSError("disk full")

    path = tmp_path / "t.safetensors"
    path.write_bytes(b"old")
    layout = dict.fromkeys(("a", "b"), (torch.float32, (2,)))
    with pytest.raises(OSError, match="disk full"):
        safetensors_file.write(path, layout, tensors(), metadata={})
    assert [(file.name, file.read_bytes()) for file in tmp_path.iterdir()] == [("t.safetensors", b"old")]


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 16, (9).to_bytes(8, "little") + b'{"a": {}}', b"\x02" + bytes(7) + b"[]"]
)
def test_what_is_no_header(tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"t\.safetensors is not a safetensors file"):
        safetensors_file.read_header(tmp_path / "t.safetensors")
