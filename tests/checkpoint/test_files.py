"""Access to tensors in each kind of file."""

import argparse

import pytest
import torch
from checkpoint_helpers import CPU, DIT, POINTER, T5, cut, dit_state, shard
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.files import Renamed, SafetensorsFiles, TorchFile
from kandinsky.checkpoint.folder import WeightFiles, weight_files
from kandinsky.errors import CheckpointError

STATE = {"a.weight": torch.arange(12.0).view(4, 3), "b": torch.tensor([1, 2])}
REGIONS = [(slice(1, 2),), (slice(3, 4), slice(0, 3))]


def opened(path):
    return SafetensorsFiles(path, WeightFiles((path,)))


def torch_file(folder):
    torch.save(STATE, folder / "s.pt")
    return TorchFile(folder / "s.pt")


def safetensors_file(folder):
    save_file(STATE, folder / "s.safetensors")
    return opened(folder / "s.safetensors")


def renamed(folder):
    torch.save({"x": STATE["a.weight"]}, folder / "s.pt")
    return Renamed(TorchFile(folder / "s.pt"), {"a.weight": "x"}, {"b": STATE["b"]}, ["note"])


@pytest.mark.parametrize("make", [torch_file, safetensors_file, renamed])
def test_every_kind_gives_the_same(make, tmp_path):
    checkpoint = make(tmp_path)
    assert dict(checkpoint.shapes) == {"a.weight": (4, 3), "b": (2,)}
    for name, value in STATE.items():
        assert checkpoint.dtype(name) == value.dtype
        assert torch.equal(checkpoint.tensor(name, CPU), value)
        chunk = torch.empty(value.nbytes - 4, dtype=torch.uint8)
        checkpoint.source(name).read(4, chunk)
        assert torch.equal(chunk, value.flatten().view(torch.uint8)[4:])
    assert torch.equal(checkpoint.tensor("a.weight", CPU, REGIONS), STATE["a.weight"][[1, 3]])


def test_a_note_says_what_a_file_has_besides(tmp_path):
    torch.save({"model": {"module": STATE}, "epoch": 3}, tmp_path / "s.pt")
    assert TorchFile(tmp_path / "s.pt").notes == (
        "the state dict is taken from its 'model' / 'module'",
        "passed over: 1 entries, first 'epoch'",
    )
    assert torch_file(tmp_path).notes == ()
    assert renamed(tmp_path).notes == ("note",)


def test_parameters_are_read_as_tensors(tmp_path):
    torch.save(dict(torch.nn.Linear(2, 2).named_parameters()), tmp_path / "s.pt")
    checkpoint = TorchFile(tmp_path / "s.pt")
    assert not checkpoint.tensor("weight", CPU).requires_grad
    checkpoint.source("weight").read(0, torch.empty(16, dtype=torch.uint8))


@pytest.mark.parametrize("kept", [0, 10, 1000, 2_000_000])
def test_truncated_pt(tmp_path, kept):
    (tmp_path / "cut.pt").write_bytes(DIT.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.pt is truncated or not a PyTorch state dict"):
        TorchFile(tmp_path / "cut.pt")


@pytest.mark.parametrize("kept", [0, 7, 1000, 200_000, -1])
def test_truncated_safetensors(tmp_path, kept):
    path = tmp_path / "cut.safetensors"
    path.write_bytes((T5 / "model.safetensors").read_bytes())
    cut(path, kept)
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is truncated or not a safetensors file"):
        opened(path)


def test_pointers_say_so(tmp_path):
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"a\.pt is a pointer of git-LFS"):
        TorchFile(tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.safetensors is a pointer of git-LFS"):
        opened(tmp_path / "a.safetensors")


@pytest.mark.parametrize("content", [[1, 2], {"epoch": 3}, {"model": STATE, "ema": STATE}])
def test_what_is_no_state_dict(tmp_path, content):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt (is not a state dict|holds several state dicts)"):
        TorchFile(tmp_path / "other.pt")


def test_no_code_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("executed",)

    torch.save(Harmful(), tmp_path / "harmful.pt")
    with pytest.raises(CheckpointError, match=r"harmful\.pt holds an object, (builtins\.)?print: not loaded"):
        TorchFile(tmp_path / "harmful.pt")


@pytest.mark.parametrize("other", [argparse.Namespace(lr=1), torch.nn.Linear(1, 1)])
def test_what_is_pickled_beside_the_tensors_is_named(tmp_path, other):
    torch.save({"model": STATE, "args": other}, tmp_path / "run.pt")
    name = rf"{type(other).__module__}\.{type(other).__name__}"
    with pytest.raises(CheckpointError, match=rf"run\.pt holds an object, {name}: .*; save its state dict by itself$"):
        TorchFile(tmp_path / "run.pt")


def test_an_index_decides_between_shards(tmp_path):
    save_file(load_file(T5 / "model.safetensors"), tmp_path / "model.safetensors")
    first, second = shard(tmp_path)
    whole = load_file(T5 / "model.safetensors")
    theirs = load_file(second)
    name = next(iter(load_file(first)))
    save_file({**theirs, name: torch.zeros(1)}, second)  # left over from another division
    checkpoint = SafetensorsFiles(tmp_path, weight_files(tmp_path))
    assert checkpoint.shapes.keys() == whole.keys()
    assert all(torch.equal(checkpoint.tensor(key, CPU), value) for key, value in whole.items())
    save_file({key: value for key, value in theirs.items() if key != next(iter(theirs))}, second)
    with pytest.raises(CheckpointError, match=rf"{second.name} does not hold '{next(iter(theirs))}', which its index"):
        SafetensorsFiles(tmp_path, weight_files(tmp_path))


def test_a_dtype_that_torch_has_not(tmp_path):
    save_file({"a": torch.zeros(4, dtype=torch.uint8)}, tmp_path / "s.safetensors")
    content = (tmp_path / "s.safetensors").read_bytes()
    (tmp_path / "s.safetensors").write_bytes(content.replace(b'"U8"', b'"U9"'))
    with pytest.raises(CheckpointError, match=r"s\.safetensors is truncated or not a safetensors file"):
        opened(tmp_path / "s.safetensors")


def test_all_of_the_tiny_dit():
    state = dit_state()
    checkpoint = TorchFile(DIT)
    assert all(torch.equal(checkpoint.tensor(name, CPU), value) for name, value in state.items())
