"""Blocks that come and go, with the bookkeeping of the GPU and plain copies."""

from contextlib import contextmanager

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from kandinsky.memory.block_stream import ALIGNMENT, BlockStream, Packed

CPU = torch.device("cpu")


def layers(count=7, width=8):
    generator = torch.Generator().manual_seed(0)
    made = [nn.Linear(width, width).requires_grad_(False) for _ in range(count)]
    for parameter in (parameter for layer in made for parameter in layer.parameters()):
        parameter.normal_(generator=generator)
    return made


def run(blocks, x):
    for block in blocks:
        x = block(x)
    return x


def streamed(blocks, slots, **settings):
    return BlockStream(blocks, [Packed([*block.parameters()]) for block in blocks], CPU, slots=slots, **settings)


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 7, None])
def test_result_is_that_of_weights_that_stay(slots):
    x = torch.randn(3, 8)
    expected = run(layers(), x)
    blocks = layers()
    stream = streamed(blocks, slots)
    with torch.inference_mode(), stream:
        assert all(torch.equal(run(blocks, x), expected) for _ in range(3))
    with stream:
        assert torch.equal(run(blocks, x), expected)


@pytest.mark.parametrize("slots", [1, 3])
def test_only_so_many_blocks_are_on_the_device(slots):
    blocks = layers()
    stream = streamed(blocks, slots)
    with stream:
        places = {block.weight.untyped_storage().data_ptr() for block in blocks}
        assert len(places) == slots
    homes = {block.weight.untyped_storage().data_ptr() for block in blocks}
    assert homes == {packed.host.untyped_storage().data_ptr() for packed in stream.packed}


def test_a_slot_is_refilled_only_after_its_block_has_run():
    """Every block sees its own weights although slots are shared, and the next pass finds the first ones loaded."""
    blocks = layers(5)
    weights = [block.weight.clone() for block in blocks]
    with streamed(blocks, 2):
        for _ in range(2):
            for block, weight in zip(blocks, weights, strict=True):
                assert torch.equal(block.weight, weight)
                block(torch.zeros(1, 8))


class Loads(TorchDispatchMode):
    """The numbers of the blocks that are copied from their homes meanwhile."""

    def __init__(self, packed):
        super().__init__()
        self.homes = {part.host.data_ptr(): index for index, part in enumerate(packed)}
        self.seen = []

    def __torch_dispatch__(self, func, _types, args=(), kwargs=None):
        if func is torch.ops.aten.copy_.default and args[1].data_ptr() in self.homes:
            self.seen.append(self.homes[args[1].data_ptr()])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("slots", [1, 3, 7])
def test_nothing_is_loaded_after_the_only_pass(slots):
    """Each block is copied once while the stream is open; a second pass is an error and not a wrong result."""
    x = torch.randn(3, 8)
    expected = run(layers(), x)
    blocks = layers()
    stream = streamed(blocks, slots, one_pass=True)
    for _ in range(2):
        with Loads(stream.packed) as loads, stream:
            assert torch.equal(run(blocks, x), expected)
        assert loads.seen == list(range(7))
    if slots < len(blocks):
        with pytest.raises(AssertionError, match="block 0 ran out of turn"), stream:
            run(blocks, run(blocks, x))


@pytest.mark.parametrize("slots", [1, 3])
def test_the_first_blocks_of_the_next_pass_are_loaded_ahead(slots):
    """But for those that are alone in their slot: they are there."""
    blocks = layers(4)
    stream = streamed(blocks, slots)
    with Loads(stream.packed) as loads, stream:
        run(blocks, torch.zeros(1, 8))
    assert loads.seen == [0, 1, 2, 3, 0]


def test_use_outside_is_an_error_of_ours():
    blocks = layers(3)
    streamed(blocks, 2)
    with pytest.raises(AssertionError, match="outside of its block stream"):
        run(blocks, torch.zeros(1, 8))


def test_packed_tensors_keep_dtype_shape_and_alignment():
    tensors = [torch.randn(3, 5), torch.randn(7).bfloat16(), torch.randn(2, 2).to(torch.float8_e4m3fn), torch.ones(())]
    copies = [tensor.clone() for tensor in tensors]
    packed = Packed(tensors)
    assert all(offset % ALIGNMENT == 0 for offset in packed.offsets)
    for tensor, copy in zip(tensors, copies, strict=True):
        assert (tensor.dtype, tensor.shape) == (copy.dtype, copy.shape)
        assert torch.equal(tensor.float(), copy.float())


def test_an_error_in_a_block_leaves_the_weights_at_home():
    blocks = layers(3)
    stream = streamed(blocks, 2)
    with pytest.raises(RuntimeError), stream:
        run(blocks, torch.zeros(1, 9))
    with stream:
        run(blocks, torch.zeros(1, 8))


class LateStream:
    """A copy stream that does its work at the last moment: when an event behind it is waited for."""

    def __init__(self, log):
        self.log, self.pending = log, []

    def wait_stream(self, _other):
        self.log.append("copies wait for everything")

    def wait_event(self, event):
        self.log.append(("copies wait for", event))

    def catch_up(self, count):
        for copy in self.pending[:count]:
            copy()
        del self.pending[:count]


class LateEvent:
    """Of the copy stream."""

    def record(self, stream):
        self.stream, self.last = stream, stream.pending[-1]

    def reach(self):
        if self.last in self.stream.pending:
            self.stream.catch_up(self.stream.pending.index(self.last) + 1)


class ComputeStream:
    def __init__(self, log, ran):
        self.log, self.ran = log, ran

    def wait_event(self, event):
        event.reach()

    def wait_stream(self, stream):
        stream.catch_up(len(stream.pending))

    def record_event(self):
        return tuple(self.ran)


@pytest.mark.parametrize("slots", [1, 2, 3, 5])
def test_streams_wait_for_each_other(slots, monkeypatch):
    """Copies that come as late as they may are in time, and none begins before its slot's last block has run."""
    blocks, log, ran = layers(5), [], []
    weights = [block.weight.clone() for block in blocks]
    stream = streamed(blocks, slots)
    side = LateStream(log)
    stream._side = side
    compute = ComputeStream(log, ran)

    @contextmanager
    def on_side(_stream):
        yield

    def load(index):
        packed, target = stream.packed[index], stream._buffers[index % slots]
        done = log[-1][1] if isinstance(log[-1], tuple) else None
        users = [user for user in ran if user % slots == index % slots]
        assert not users or done[-1] == users[-1] == ran[-1]
        stream._held[index % slots] = index
        side.pending.append(lambda: target[: packed.nbytes].copy_(packed.host))
        stream._ready[index] = LateEvent()
        stream._ready[index].record(side)

    monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: compute)
    monkeypatch.setattr(torch.cuda, "stream", on_side)
    monkeypatch.setattr(stream, "_load", load)
    with stream:
        for _ in range(3):
            for index, (block, weight) in enumerate(zip(blocks, weights, strict=True)):
                stream._before(index)
                assert torch.equal(block.weight, weight)
                ran.append(index)
                stream._after(index)
    assert not side.pending
