"""Who the processes are, and what they share."""

import pickle

import pytest
import torch

from kandinsky.parallel import ranks
from kandinsky.parallel.ranks import Ranks, launched, launched_rank, local_rank, open_group

CPU = torch.device("cpu")


def test_one_process_is_all_there_is():
    ranks = Ranks.current()
    assert ranks == open_group(CPU) == Ranks(0, 1)
    assert ranks.is_main
    assert ranks.share("value") == ranks.share_made(lambda: "value") == "value"
    tensor = torch.tensor([1.0, 2.0])
    assert torch.equal(ranks.share_tensor(tensor, (2,), device=CPU, dtype=torch.float64), tensor.double())
    assert torch.equal(ranks.gather(tensor), tensor[None])


@pytest.mark.parametrize(("size", "bounds"), [(1, [0, 7]), (2, [0, 3, 7]), (4, [0, 1, 3, 5, 7])])
def test_shares_are_nearly_even(size, bounds):
    assert Ranks(0, size).bounds(7) == bounds


def test_variables_of_a_launcher(monkeypatch):
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    assert (launched(), launched_rank(), local_rank()) == (False, 0, 0)
    for name, value in zip(names, ("3", "4", "127.0.0.1", "1234", "1"), strict=True):
        monkeypatch.setenv(name, value)
    assert (launched(), launched_rank(), local_rank()) == (True, 3, 1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    assert not launched()


def test_a_launchers_processes_find_each_other(processes):
    assert [rank["ranks"] for rank in processes.of("ranks")] == [
        Ranks(rank, processes.size) for rank in range(processes.size)
    ]
    assert all(rank["opened again"] == rank["ranks"] for rank in processes.of("ranks"))


@pytest.mark.parametrize("after", [0.0, 0.02, 1.0, 60.0])
def test_what_is_shared_is_seen_soon_after_it_is_there(after, monkeypatch):
    """At most a 16th of the waiting later, and a hundredth of a second."""
    now, looks = [0.0], []

    class Store:
        def check(self, _keys):
            looks.append(now[0])
            return now[0] >= after

        def get(self, _key):
            return pickle.dumps("value")

    def sleep(seconds):
        now[0] += seconds

    monkeypatch.setattr(ranks.time, "sleep", sleep)
    monkeypatch.setattr(ranks.time, "monotonic", lambda: now[0])
    assert ranks._Post(None, Store())._wait("key") == "value"
    assert after <= now[0] <= after + min(max(0.0002, after / 16), 0.01)
    assert len(looks) < 80 + 100 * after  # a hundredth of a core


def test_the_main_ranks_values_are_everyones(processes):
    for rank in processes.of("ranks"):
        assert (rank["shared"], rank["made"]) == ({"rank": 0}, "by 0")
        assert rank["refusal"] == "rank 0 refuses"
        assert (rank["tensor"].dtype, rank["tensor"].tolist()) == (torch.float64, [1.5, 2.5])


def test_everyones_values_are_stacked(processes):
    mine = torch.arange(6.0).view(3, 2).T
    expected = torch.stack([mine + 10 * rank for rank in range(processes.size)])
    for rank in processes.of("ranks"):
        assert torch.equal(rank["gathered"], expected)
