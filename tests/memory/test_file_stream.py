"""Blocks that are read from their file each time."""

import ctypes
import gc

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.errors import CheckpointError
from kandinsky.memory import file_stream
from kandinsky.memory.file_stream import FilePart, FileStream
from kandinsky.memory.ring import Ring

CPU = torch.device("cpu")
LIBC = ctypes.CDLL(None)
MALLINFO = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]


@pytest.fixture(autouse=True)
def nothing_is_small(monkeypatch):
    """The layers of these tests are read from the file, as large ones are."""
    monkeypatch.setattr(file_stream, "SMALL_BYTES", 32)


def layers(folder, count=5):
    """Linears whose weights are mapped from a file, and that file."""
    torch.manual_seed(0)
    made = nn.ModuleList(nn.Linear(8, 8) for _ in range(count)).requires_grad_(False)
    save_file(dict(made.state_dict()), folder / "m.safetensors")
    checkpoint = open_checkpoint(folder / "m.safetensors")
    made.load_state_dict({name: checkpoint.tensor(name, CPU) for name in checkpoint.shapes}, assign=True)
    return made, checkpoint


def stream_of(made, checkpoint, device=CPU, **settings):
    parts = [
        FilePart({f"{index}.{name}": value for name, value in layer.named_parameters()}, checkpoint)
        for index, layer in enumerate(made)
    ]
    return FileStream([*made], parts, device, **settings)


def run(made, x):
    for layer in made:
        x = layer(x)
    return x


@pytest.mark.parametrize("slots", [1, 2, 3, 5, None])
def test_result_is_that_of_weights_that_stay(tmp_path, slots):
    made, checkpoint = layers(tmp_path)
    x = torch.randn(3, 8)
    expected = run(made, x)
    stream = stream_of(made, checkpoint, slots=slots)
    for _ in range(2):
        with torch.inference_mode(), stream:
            assert all(torch.equal(run(made, x), expected) for _ in range(3))
    assert torch.equal(run_at_home(made, x), expected)


@pytest.mark.parametrize("slots", [1, 2, 3, 5, None])
def test_what_came_is_changed_once_each_time(tmp_path, slots):
    """A weight that is doubled is not doubled twice, and is the file's again without the change."""
    made, checkpoint = layers(tmp_path)
    x = torch.randn(3, 8)
    plain = run(made, x)
    stream = stream_of(made, checkpoint, slots=slots)
    stream.change_({3: lambda: made[3].weight.mul_(2)})
    doubled = x
    for index, layer in enumerate(made):
        doubled = nn.functional.linear(doubled, layer.weight * (2 if index == 3 else 1), layer.bias)
    for _ in range(2):
        with torch.inference_mode(), stream:
            assert all(torch.equal(run(made, x), doubled) for _ in range(3))
    stream.change_({})
    with torch.inference_mode(), stream:
        assert torch.equal(run(made, x), plain)


def run_at_home(made, x):
    """Without the hooks, which would refuse."""
    for layer in made:
        x = nn.functional.linear(x, layer.weight, layer.bias)
    return x


def test_one_pass_is_read_once(tmp_path, monkeypatch):
    made, checkpoint = layers(tmp_path)
    read, jobs = [], FilePart.jobs
    monkeypatch.setattr(FilePart, "jobs", lambda part, flat: read.append(part) or jobs(part, flat))
    stream = stream_of(made, checkpoint, one_pass=True)
    with stream:
        run(made, torch.zeros(1, 8))
    assert list(map(stream.packed.index, read)) == [0, 1, 2, 3, 4]


def test_nothing_of_the_weights_is_on_the_host(tmp_path):
    made, checkpoint = layers(tmp_path)
    homes = [layer.weight.data_ptr() for layer in made]
    stream = stream_of(made, checkpoint)
    assert [layer.weight.data_ptr() for layer in made] == homes
    with stream:
        assert len({layer.weight.untyped_storage().data_ptr() for layer in made}) == 3
    assert [layer.weight.data_ptr() for layer in made] == homes


def test_a_file_that_was_cut_is_an_error_of_ours_and_the_stream_closes(tmp_path):
    made, checkpoint = layers(tmp_path)
    stream = stream_of(made, checkpoint)
    with (tmp_path / "m.safetensors").open("r+b") as file:
        file.truncate(600)
    with pytest.raises(CheckpointError, match="could not be read again"), stream:
        run(made, torch.zeros(1, 8))
    assert not stream._open


@pytest.mark.parametrize("small", [0, 32, 2**20])
def test_small_and_large_tensors_lie_as_they_should(tmp_path, monkeypatch, small):
    """Small ones first, whatever their order was."""
    monkeypatch.setattr(file_stream, "SMALL_BYTES", small)
    tensors = {"a": torch.randn(40), "b": torch.randn(3), "c": torch.randn(9, 2).bfloat16(), "d": torch.ones(())}
    save_file(tensors, tmp_path / "t.safetensors")
    part = FilePart(dict(tensors), open_checkpoint(tmp_path / "t.safetensors"))
    buffer = torch.zeros(part.nbytes, dtype=torch.uint8)
    part.fill_(buffer)
    for tensor, view in zip(part.tensors, part.views(buffer), strict=True):
        assert torch.equal(tensor, view)


def test_tensors_that_the_file_lacks_are_read_from_the_host(tmp_path):
    _, checkpoint = layers(tmp_path)
    value = torch.arange(6.0)
    part = FilePart({"not there": value}, checkpoint)
    buffer = torch.zeros(part.nbytes, dtype=torch.uint8)
    part.fill_(buffer)
    assert torch.equal(next(part.views(buffer)), torch.arange(6.0))


def test_another_dtype_than_the_files_is_refused(tmp_path):
    _, checkpoint = layers(tmp_path)
    with pytest.raises(AssertionError, match=r"0\.weight is torch\.float64"):
        FilePart({"0.weight": torch.zeros(8, 8, dtype=torch.float64)}, checkpoint)


@pytest.mark.gpu
@pytest.mark.parametrize("slots", [1, 3])
def test_on_a_gpu_a_slot_is_not_overwritten_while_it_is_used(tmp_path, slots):
    """Large layers and many passes: a copy that came too early would change what is computed."""
    torch.manual_seed(0)
    made = nn.ModuleList(nn.Linear(2048, 2048) for _ in range(6)).requires_grad_(False)
    save_file(dict(made.state_dict()), tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    x = torch.randn(4096, 2048, device="cuda")
    there = nn.ModuleList(nn.Linear(2048, 2048) for _ in range(6)).requires_grad_(False).cuda()
    there.load_state_dict(made.state_dict())
    expected = run(there, x)
    made.load_state_dict({name: checkpoint.tensor(name, CPU) for name in checkpoint.shapes}, assign=True)
    stream = stream_of(made, checkpoint, torch.device("cuda", 0), slots=slots)
    for _ in range(5):
        with stream:
            assert all(torch.equal(run(made, x), expected) for _ in range(4))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(LIBC, "mallinfo2"), reason="only glibc tells how much is allocated")
def test_the_process_holds_a_ring_and_no_weights(tmp_path, monkeypatch):
    """160 MB of layers run with less than 40 MB of memory that is allocated; pages of files are the system's."""
    monkeypatch.setattr(Ring.__init__, "__kwdefaults__", {"readers": 2, "chunk_bytes": 2**20})
    made = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(40)).requires_grad_(False)
    save_file(dict(made.state_dict()), tmp_path / "m.safetensors")
    del made
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    with torch.device("meta"):
        made = nn.ModuleList(nn.Linear(1024, 1024, bias=False) for _ in range(40)).requires_grad_(False)
    made.load_state_dict({name: checkpoint.tensor(name, CPU) for name in checkpoint.shapes}, assign=True)
    before = allocated()
    stream = stream_of(made, checkpoint)
    with stream:
        run(made, torch.zeros(1, 1024))
        held = allocated() - before
    assert held < 40 * 10**6


def allocated():
    """Bytes that are in use. What the process has of the system says less: conftest.py lets it keep what is freed."""

    class Mallinfo(ctypes.Structure):
        _fields_ = tuple((name, ctypes.c_size_t) for name in MALLINFO)

    gc.collect()
    LIBC.mallinfo2.restype = Mallinfo
    found = LIBC.mallinfo2()
    return found.uordblks + found.hblkhd
