"""Halos that come from the host: each convolution gets its own, whenever the copies are made that streams allow."""

from contextlib import contextmanager

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from kandinsky.vae.decoder_weights import CausalConv
from kandinsky.vae.halos import Halos, HostHalos

LIKE = torch.zeros(3, 2, 2, 4)


class LateStream:
    """Does its work at the last moment: when another stream that waited for it goes on; or at the first."""

    def __init__(self, *, early: bool, waits: bool):
        self.early, self.waits, self.pending = early, waits, []

    def wait_stream(self, other):
        if isinstance(other, LateStream) and self.waits:
            self.pending.append(other.flush_to(len(other.pending)))

    def flush_to(self, count):
        wanted = self.pending[:count]

        def flush():
            for work in wanted:
                if work in self.pending:
                    self.pending.remove(work)
                    work()

        return flush


class ComputeStream:
    """Does its work at once."""

    def __init__(self, *, waits: bool):
        self.waits = waits

    def wait_stream(self, other):
        if self.waits:
            other.flush_to(len(other.pending))()


class LateStreams(TorchFunctionMode):
    """In the place of `torch.cuda`: copies on a side stream are made late, or early; other work at once.

    Args:
        early: of the stream that leaves the device, and of the one that comes back.
        forgets: "compute" or "side": such a stream waits for none.
    """

    def __init__(self, early=(False, False), forgets=None):
        super().__init__()
        self._early, self._forgets = list(early), forgets
        self._compute, self._now = ComputeStream(waits=forgets != "compute"), None

    def Stream(self, _device):  # noqa: N802  # as torch.cuda calls it
        return LateStream(early=self._early.pop(0), waits=self._forgets != "side")

    def current_stream(self, _device):
        return self._compute

    @contextmanager
    def stream(self, stream):
        self._now = stream
        yield
        self._now = None

    def __torch_function__(self, func, _types, args=(), kwargs=None):
        stream = self._now
        if func is not Tensor.copy_ or stream is None:
            return func(*args, **(kwargs or {}))
        stream.pending.append(lambda: func(*args))
        if stream.early:
            stream.flush_to(len(stream.pending))()
        return args[0]


def convolutions(count):
    """One kernel each, of different sizes."""
    return [CausalConv((torch.zeros(4, 3 + slot % 2, 3, 3, 3),), 1 + slot % 3, slot) for slot in range(count)]


def windows_of(halos, convs, chunks):
    """What each convolution of each chunk reads, frames being counted up."""
    found = []
    for chunk in range(chunks):
        for conv in convs:
            shape = (conv.halo + 2, 2 * conv.scale, 2 * conv.scale, conv.in_channels)
            window = torch.full(shape, -1.0)
            window[conv.halo :] = 100 * chunk + conv.slot + torch.tensor([0.1, 0.2])[:, None, None, None]
            halos.load(conv, window)
            halos.store(conv, window)
            found.append(window.clone())
    return found


def are_equal(count, streams):
    convs = convolutions(count)
    expected = windows_of(Halos(convs, LIKE, border=0), convs, 4)
    with streams:
        found = windows_of(HostHalos(convs, LIKE, border=0, streams=streams), convs, 4)
    return all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_window_begins_with_the_end_of_the_one_before():
    """The first chunk continues its first frame into the past."""
    (conv,) = convolutions(1)
    first, second = windows_of(Halos([conv], LIKE, border=0), [conv], 2)
    assert first[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.1, 0.1, 0.2])
    assert second[:, 0, 0, 0].tolist() == pytest.approx([0.1, 0.2, 100.1, 100.2])


def test_halos_of_a_border_have_its_rows():
    (conv,) = convolutions(1)
    for halos in (Halos([conv], LIKE, border=1), HostHalos([conv], LIKE, border=1)):
        window = torch.randn(4, 2 + 2, 2, 3)
        halos.store(conv, window)
        following = torch.zeros_like(window)
        halos.load(conv, following)
        assert torch.equal(following[:2], window[2:])


def test_the_hosts_own_memory_is_that_of_all_halos():
    convs = convolutions(3)
    numbers = sum(2 * (2 * conv.scale) ** 2 * conv.in_channels for conv in convs)
    assert HostHalos(convs, LIKE, border=0).nbytes == 4 * numbers


@pytest.mark.parametrize("early", [(False, False), (False, True), (True, False)], ids=["late", "come", "leave"])
@pytest.mark.parametrize("count", [2, 5])
def test_copies_are_in_time(count, early):
    assert are_equal(count, LateStreams(early))


@pytest.mark.parametrize(("forgets", "early"), [("compute", (False, False)), ("side", (False, True))])
def test_streams_that_do_not_wait_are_found(forgets, early):
    """The test above can fail."""
    assert not are_equal(2, LateStreams(early, forgets))
