"""Jobs to workers and back, with workers that do what the test says."""

import sqlite3

import pytest
from helpers import LONG
from serving_kit import ASKED, Hands, HandWorker, until

from kandinsky.serving import notes, scheduler
from kandinsky.serving.messages import Failed, Free, Refused, Stage, Step
from kandinsky.serving.store import Store


@pytest.fixture
def hands(tmp_path, monkeypatch):
    monkeypatch.setattr(scheduler, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(notes, "RETRY", 0.01)
    with Store(tmp_path) as store:
        hands = Hands(store)
        yield hands
        hands.scheduler.kill()


def post(hands, number=1):
    jobs = [hands.store.create([ASKED], owner="me")[0].id for _ in range(number)]
    if hands.scheduler is not None:
        hands.scheduler.wake()
    return jobs


def status(hands, job_id):
    job = hands.store.get(job_id)
    return None if job is None else job.status


def test_in_order_to_whoever_is_free(hands):
    ids = post(hands, 3)
    one, two = hands.start(["a", "b"]).workers
    assert not one.got
    one.ready()
    until(lambda: len(one.got) == 1)
    two.ready()
    until(lambda: len(two.got) == 1)
    two.finish()
    until(lambda: len(two.got) == 2)
    assert [order.job_id for order in one.got + two.got] == ids
    assert status(hands, ids[1]) == "completed"
    assert hands.store.file_of(hands.store.get(ids[1])).read_bytes() == b"video"


def test_the_next_begins_while_a_file_is_finished(hands):
    ids = post(hands, 2)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    worker.report(worker, Free())
    until(lambda: len(worker.got) == 2)
    assert [status(hands, job_id) for job_id in ids] == ["in_progress"] * 2


def test_a_job_that_takes_its_workers_with_it(hands):
    poison, other = post(hands, 2)
    first = hands.start().workers[0]
    first.ready()
    until(lambda: first.got)
    first.die()
    second = until(lambda: hands.workers[1:])[0]
    second.ready()
    until(lambda: second.got)
    assert second.got[0].job_id == poison  # its old place
    second.report(second, Free())
    second.report(second, Stage(poison, "write"))
    until(lambda: hands.scheduler.live.now(poison).stage == "write")
    assert len(second.got) == 1  # nothing beside it that could be counted too
    second.die()
    until(lambda: status(hands, poison) == "failed")
    job = hands.store.get(poison)
    assert (job.code, job.reason) == (
        "worker_died", "2 workers ended while they made it, the last one with exit code -9"
    )  # fmt: skip
    third = until(lambda: hands.workers[2:])[0]
    third.ready()
    until(lambda: third.got)
    assert third.got[0].job_id == other
    third.finish()
    until(lambda: status(hands, other) == "completed")


def test_a_failure_is_noted_and_the_worker_goes_on(hands):
    ids = post(hands, 2)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    worker.report(worker, Failed(ids[0], "disk_full", "No space left"))
    worker.report(worker, Free())
    until(lambda: len(worker.got) == 2)
    assert (hands.store.get(ids[0]).status, hands.store.get(ids[0]).code) == ("failed", "disk_full")


def test_cancel(hands):
    runs, waits = post(hands, 2)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    hands.scheduler.stop(waits)
    until(lambda: status(hands, waits) == "cancelled")
    hands.scheduler.stop(runs)
    until(lambda: status(hands, runs) == "cancelled")
    assert worker.cancels == [runs]


def test_cancelled_while_its_file_is_finished(hands):
    (job_id,) = post(hands)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    worker.send = lambda _message: None  # it is beyond sampling, and does not hear
    hands.scheduler.stop(job_id)
    until(lambda: hands.scheduler.hands["w"].jobs[job_id].cancelled)
    worker.finish()
    until(lambda: status(hands, job_id) == "cancelled")
    assert not hands.store.folder_of(job_id).exists()


def test_deleted_while_it_runs(hands):
    (job_id,) = post(hands)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    hands.store.folder_of(job_id).mkdir()
    hands.store.delete(job_id)
    hands.scheduler.cancel(job_id)
    until(lambda: not hands.store.folder_of(job_id).exists())
    assert worker.cancels == [job_id]


def test_drain(hands):
    runs, waits = post(hands, 2)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    hands.scheduler.drain()
    until(lambda: hands.scheduler.draining)
    assert not hands.scheduler.drained.is_set()
    worker.finish()
    assert hands.scheduler.drained.wait(LONG)
    hands.scheduler.wait_until_gone(LONG)
    assert worker.ended
    assert [status(hands, job_id) for job_id in (runs, waits)] == ["completed", "queued"]
    assert len(hands.workers) == 1


def test_an_end_is_noted_however_long_the_store_is_locked(hands):
    (job_id,) = post(hands)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    hands.store._database._writer.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(hands.store.folder / "jobs.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    worker.finish()
    until(lambda: ("store failed, tries again", {"error": "database is locked"}) in hands.lines)
    other.execute("ROLLBACK")
    other.close()
    until(lambda: status(hands, job_id) == "completed")


def test_weights_that_cannot_be_loaded(hands):
    (worker,) = hands.start().workers
    worker.report(worker, Refused("ValueError: no such device", argument=True))
    assert hands.scheduler.drained.wait(LONG)
    assert hands.scheduler.refused.reason == "ValueError: no such device"


def test_where_a_job_is(hands):
    (job_id,) = post(hands)
    (worker,) = hands.start().workers
    worker.ready()
    until(lambda: worker.got)
    worker.report(worker, Step(job_id, 2, 4, b"jpeg"))
    now = until(lambda: (now := hands.scheduler.live.now(job_id)).step and now)
    assert (now.stage, now.step, now.total, now.picture, now.pictured, now.percent) == (
        "sample", 2, 4, b"jpeg", 2, 45
    )  # fmt: skip
    worker.report(worker, Stage(job_id, "decode"))
    until(lambda: hands.scheduler.live.now(job_id).percent == 85)
    worker.finish()
    until(lambda: hands.scheduler.live.now(job_id) is None)


def test_a_worker_that_cannot_be_started_is_tried_again(hands):
    begun = []

    def start(name, report):
        begun.append(name)
        if len(begun) < 3:
            raise OSError("no memory for a process")
        hands.workers.append(HandWorker(name, report))
        return hands.workers[-1]

    (job_id,) = post(hands)
    hands.scheduler = scheduler.Scheduler(hands.store, {"w": start})
    hands.scheduler.start()
    worker = until(lambda: hands.workers)[0]
    worker.ready()
    until(lambda: worker.got)
    worker.finish()
    until(lambda: status(hands, job_id) == "completed")
    assert hands.scheduler.hands["w"].all_ends == 2


def test_a_fault_with_one_job_is_not_the_end_of_all(hands):
    """The thread that gives out jobs goes on, whatever was raised in it."""
    (worker,) = hands.start().workers
    worker.ready()
    hands.scheduler._post("nonsense")
    (job_id,) = post(hands)
    hands.scheduler.wake()
    until(lambda: worker.got)
    worker.finish()
    until(lambda: status(hands, job_id) == "completed")
    assert [facts["at"] for event, facts in hands.lines if event == "scheduler failed"] == ["nonsense"]
