"""Threads that read ahead, with a device that is the CPU."""

import threading

import pytest
import torch
from helpers import LONG

from kandinsky.checkpoint.gpu_copy import MappedSource
from kandinsky.memory.ring import CHUNK_BYTES, READERS, RING_BYTES, Ring

CPU = torch.device("cpu")


@pytest.fixture
def ring():
    made = Ring(CPU, readers=3, chunk_bytes=1000)
    yield made
    made.close()


class Broken(MappedSource):
    def read(self, *_piece):
        raise OSError("no disk")


def test_blocks_arrive_whole_and_in_any_number(ring):
    blocks = [torch.randn(77, 31), torch.randn(500, 3).bfloat16(), torch.tensor(3)]
    targets = [torch.zeros_like(block) for block in blocks]
    arrivals = [ring.begin([(MappedSource(block), target)]) for block, target in zip(blocks, targets, strict=True)]
    for arrival, block, target in zip(arrivals, blocks, targets, strict=True):
        arrival.wait(None)
        assert torch.equal(block, target)


def test_who_needs_a_block_waits_for_it(ring):
    gate = threading.Event()

    class Blocked(MappedSource):
        def read(self, start, chunk):
            gate.wait()
            super().read(start, chunk)

    source, target = torch.randn(2000), torch.zeros(2000)
    arrival = ring.begin([(Blocked(source), target)])
    waited = threading.Thread(target=arrival.wait, args=(None,))
    waited.start()
    waited.join(0.05)
    assert waited.is_alive()
    gate.set()
    waited.join(LONG)
    assert torch.equal(source, target)


def test_an_error_comes_where_the_block_is_needed_and_the_ring_goes_on(ring):
    target = torch.zeros(2000)
    broken = ring.begin([(Broken(torch.ones(2000)), target)])
    after = ring.begin([(MappedSource(torch.ones(2000)), target)])
    with pytest.raises(OSError, match="no disk"):
        broken.wait(None)
    after.wait(None)
    assert target.sum() == 2000


def test_a_closed_ring_writes_nothing_more():
    ring = Ring(CPU, readers=2, chunk_bytes=1000)
    targets = [torch.zeros(5000) for _ in range(20)]
    for target in targets:
        ring.begin([(MappedSource(torch.ones(5000)), target)])
    ring.close()
    sums = [target.sum().item() for target in targets]
    assert not any(thread.is_alive() for thread in ring._threads)
    assert sums == [target.sum().item() for target in targets]


def test_what_it_takes():
    assert RING_BYTES == 2 * READERS * CHUNK_BYTES <= 2**28
