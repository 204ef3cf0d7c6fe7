"""Nobody waits for a rank that is gone: watchdogs of several ranks in one process, over one store."""

import os
import threading
import time
from types import SimpleNamespace

import pytest
import torch.distributed as dist
from helpers import LONG

from kandinsky.parallel import watchdog
from kandinsky.parallel.watchdog import Watchdog, end_process, is_loss, report_failure, rescue

INTERVAL = 0.02


class Ends:
    """In the place of the end of a process: what it ended with."""

    def __init__(self):
        self.failure = None
        self._ended = threading.Event()

    def __call__(self, failure):
        self.failure = failure
        self._ended.set()

    def wait(self):
        assert self._ended.wait(LONG)
        return self.failure


def watchdogs(store, *, size=2, silence=LONG):
    """Those of `size` ranks, each with its end."""
    ends = [Ends() for _ in range(size)]
    settings = {"interval": INTERVAL, "silence": silence}
    return [(Watchdog(store, rank, size, end=end, **settings), end) for rank, end in enumerate(ends)]


def test_all_wait_until_all_are_done():
    store = dist.HashStore()
    dogs = watchdogs(store, size=3)
    for dog, _ in dogs:
        dog.begin()
    finished = []
    threads = [threading.Thread(target=lambda dog=dog: finished.append(dog.finish())) for dog, _ in dogs]
    for rank, thread in enumerate(threads[:2]):
        thread.start()
        while store.get(f"beat {rank}") != b"done":
            time.sleep(INTERVAL)
    assert finished == []
    assert finished == []
    threads[2].start()
    for thread in threads:
        thread.join(LONG)
    assert finished == [True] * 3
    assert [end.failure for _, end in dogs] == [None] * 3


def test_who_is_done_does_not_wait_for_a_sign_of_life():
    """A command of several processes would end half a second later."""
    store = dist.HashStore()
    dogs = [Watchdog(store, rank, 2, interval=LONG, silence=LONG) for rank in range(2)]
    threads = [threading.Thread(target=dog.finish, daemon=True) for dog in dogs]
    for dog in dogs:
        dog.begin()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG / 2)
    assert not any(thread.is_alive() for thread in threads)


def test_the_first_rank_leaves_last():
    """Its process may hold the store, in which the others look until they know that all are done."""
    store = dist.HashStore()
    dogs = watchdogs(store, size=3)
    seen = {}

    def finish(dog):
        dog.finish()
        seen[dog.rank] = [store.get(f"beat {other}").decode() for other in range(3)]

    threads = [threading.Thread(target=finish, args=(dog,)) for dog, _ in dogs]
    for (dog, _), thread in zip(dogs, threads, strict=True):
        dog.begin()
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert seen[0] == ["done", "left", "left"]
    assert seen.keys() == {0, 1, 2}


def test_a_failure_ends_the_others_with_its_message():
    (first, first_end), (last, last_end) = watchdogs(dist.HashStore())
    first.begin()
    last.begin()
    last.report(ArithmeticError("cannot count"))
    assert first_end.wait() == "rank 1 failed: ArithmeticError: cannot count"
    assert last_end.failure is None
    assert not last.finish()


def test_the_first_failure_is_what_is_told():
    store = dist.HashStore()
    (first, _), (second, _), (third, end) = watchdogs(store, size=3)
    first.report(ArithmeticError("first"))
    second.report(ArithmeticError("second"))
    third.begin()
    assert end.wait() == "rank 0 failed: ArithmeticError: first"


def test_a_lost_connection_is_not_told_as_the_failure():
    """Who loses the connection to a rank that failed ends with that rank's failure."""
    (first, _), (last, end) = watchdogs(dist.HashStore())
    last.begin()
    first.report(ArithmeticError("cannot count"))
    last.report(RuntimeError("Connection closed by peer"))
    assert end.wait() == "rank 0 failed: ArithmeticError: cannot count"


def test_a_rank_that_falls_silent_is_given_up():
    (first, end), _ = watchdogs(dist.HashStore(), silence=5 * INTERVAL)
    first.begin()
    assert end.wait().startswith("rank 1 stopped answering")


def test_ranks_that_were_all_stopped_go_on(monkeypatch):
    """By Ctrl-Z, say: the one that looks first finds no new sign of life of the others, which wake up as it does."""
    now = [0.0]
    monkeypatch.setattr(watchdog, "time", SimpleNamespace(monotonic=lambda: now[0]))
    store = dist.HashStore()
    (first, _), _ = watchdogs(store)

    def look_after(seconds):
        now[0] += seconds
        return first._look()

    assert look_after(1) is None
    assert look_after(100 * LONG) is None
    store.set("beat 1", "5")
    assert look_after(1) is None
    assert [look_after(1) for _ in range(int(LONG))] == [None] * int(LONG)
    assert look_after(1).startswith("rank 1 stopped answering")


def test_a_rank_that_is_done_may_be_silent():
    store = dist.HashStore()
    (first, end), (last, _) = watchdogs(store, silence=5 * INTERVAL)
    store.set("beat 1", "done")
    first.begin()
    assert first.finish()
    assert end.failure is None
    assert last.others == [0]


def test_the_end_of_the_store_is_a_failure():
    class Gone:
        def set(self, *_):
            raise RuntimeError("broken pipe")

    ((dog, end),) = watchdogs(Gone(), size=1)
    dog.begin()
    assert end.wait() == "the connection to the first rank is lost (broken pipe)"


def test_what_is_to_be_rescued_is_rescued_first():
    """The last one that was begun first, and the process ends even if that fails."""
    (first, end), (last, _) = watchdogs(dist.HashStore())
    saved = []

    def fail():
        saved.append(("fails", end.failure))
        raise OSError("disk full")

    first.rescues += [lambda: saved.append(("never", None)), fail, lambda: saved.append(("saved", end.failure))]
    last.report(ArithmeticError("cannot count"))
    with pytest.raises(OSError, match="disk full"):
        first._watch()
    assert saved == [("saved", None), ("fails", None)]
    assert end.failure == "rank 1 failed: ArithmeticError: cannot count"


def test_one_process_has_nobody_to_tell():
    assert Watchdog.active is None
    report_failure(ArithmeticError("cannot count"))
    with rescue(lambda: pytest.fail("nothing failed")):
        pass


def test_a_launchers_processes_are_watched(processes):
    for found in processes.of("watchdog"):
        assert found["others"] == [other for other in range(processes.size) if other != found["rank"]]
        assert (found["during"], found["after"]) == (1, 0)


def test_an_end_says_why(capfd, monkeypatch):
    codes = []
    monkeypatch.setattr(os, "_exit", codes.append)  # which would end the tests
    end_process("rank 1 failed")
    assert codes == [1]
    assert capfd.readouterr().err == "error: rank 1 failed\n"


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:59430"), True),
        (dist.DistNetworkError("the store does not answer"), True),
        (RuntimeError("CUDA out of memory"), False),
        (ValueError("width=3"), False),
    ],
)
def test_which_errors_say_that_another_rank_is_lost(error, lost):
    assert is_loss(error) is lost
