"""Jobs on disk: order, repeated posts, who sees what, and what survives."""

import dataclasses
import os
import shutil
import signal
import sqlite3
import subprocess
import sys

import pytest
from serving_kit import ASKED

from kandinsky.serving.arrivals import FullError, OtherBodyError
from kandinsky.serving.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "data") as store:
        yield store


def new(store, owner="me", **settings):
    (job,) = store.create([ASKED], owner=owner, **settings)
    return job


def test_a_job_and_its_way(store):
    job = new(store)
    assert (job.status, job.asked, store.get(job.id)) == ("queued", ASKED, job)
    claimed = store.claim()
    assert claimed.id == job.id
    assert store.get(job.id).status == "in_progress"
    assert store.claim() is None
    assert store.finish(job.id, "completed", timings={"total": 1.5}, size=7)
    done = store.get(job.id)
    assert (done.status, done.timings, done.size, done.downloaded) == ("completed", {"total": 1.5}, 7, False)
    assert not store.finish(job.id, "failed")  # it ends once
    store.fetched(job.id)
    assert store.get(job.id).downloaded


def test_the_order_is_that_of_arrival_whatever_the_clock_does(tmp_path):
    times = iter([1000.0, 10.0, 500.0, *[501.0] * 10])
    with Store(tmp_path, clock=lambda: next(times)) as store:
        ids = [new(store).id for _ in range(3)]
        assert [store.claim().id for _ in range(3)] == ids
        assert [job.id for job in store.page(owner="me", limit=5, ascending=True)[0]] == ids


def test_what_goes_back_keeps_its_place(store):
    first, second = new(store), new(store)
    store.claim()
    assert store.place(second) == 0
    assert store.requeue(first.id, killed=True).kills == 1
    assert store.place(second) == 1
    assert store.claim().id == first.id
    assert store.claim(fits=lambda _job: False) is None


def test_a_repeated_post_is_the_same_job(store):
    one = new(store, repeat=("key", "body"))
    assert new(store, repeat=("key", "body")) == one
    assert new(store, owner="you", repeat=("key", "body")).id != one.id
    with pytest.raises(OtherBodyError):
        new(store, repeat=("key", "another"))
    assert store.counts()["queued"] == 2


def test_room(store):
    new(store, most_queued=1)
    with pytest.raises(FullError, match="1 jobs wait already, and 1 may"):
        new(store, most_queued=1)
    with pytest.raises(FullError, match="of this key"):
        new(store, most_of_owner=1)
    new(store, owner="you", most_of_owner=1)


def test_pages(store):
    ids = [new(store).id for _ in range(5)]
    new(store, owner="you")
    store.create([dataclasses.replace(ASKED, time_length=0, ending=".png")], owner="me")
    page, more = store.page(owner="me", limit=2)
    assert ([job.id for job in page], more) == ([ids[4], ids[3]], True)
    page, more = store.page(owner="me", limit=3, after=page[-1].number)
    assert ([job.id for job in page], more) == ([ids[2], ids[1], ids[0]], False)
    assert store.get(ids[0], owner="you") is None
    (image,), more = store.page(owner="me", limit=2, kind="image")
    assert (image.asked.kind, more) == ("image", False)
    assert [job.id for job in store.page(owner="me", limit=2, kind=None)[0]] == [image.id, ids[4]]


def test_cancel(store):
    waits, runs, done = new(store), new(store), new(store)
    store.claim()
    store.requeue(waits.id, killed=False)
    store.cancel(waits.id)
    assert store.claim().id == runs.id
    assert store.cancel(runs.id).status == "in_progress"
    assert store.get(runs.id).cancelled
    store.claim()
    store.finish(done.id, "completed")
    assert store.cancel(done.id).status == "completed"
    assert store.get(waits.id).status == "cancelled"


def test_the_next_server_goes_on(tmp_path):
    with Store(tmp_path) as store:
        runs, stopped, waits = new(store), new(store), new(store)
        store.claim(), store.claim()
        store.cancel(stopped.id)
        for name in (f"video_{'0' * 24}", f"upload_{'a' * 24}", "holidays"):
            (store.files / name).mkdir()
        store.folder_of(runs.id).mkdir()
    with Store(tmp_path) as store:
        assert sorted(store.recover()) == sorted([runs.id, stopped.id])
        assert [store.claim().id, store.claim().id, store.claim()] == [runs.id, waits.id, None]
        assert store.get(stopped.id).status == "cancelled"
        assert {path.name for path in store.files.iterdir()} == {runs.id, "holidays"}  # which are not ours


def test_deleted(store):
    waits, runs = new(store), new(store)
    for job in (waits, runs):
        store.folder_of(job.id).mkdir()
    store.claim()
    store.claim()
    store.requeue(waits.id, killed=False)
    store.delete(waits.id)
    store.delete(runs.id)
    assert store.get(waits.id) is None
    assert not store.folder_of(waits.id).exists()
    assert store.folder_of(runs.id).exists()  # its worker writes there
    assert not store.finish(runs.id, "completed")


def test_a_second_server_is_refused(store):
    with pytest.raises(ValueError, match="another server works in this folder"):
        Store(store.folder)


def test_a_folder_that_cannot_be_used(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="must be a folder"):
        Store(tmp_path / "file")
    (tmp_path / "jobs.db").write_text("this is no database at all, however long it may be" * 100)
    with pytest.raises(ValueError, match=r"jobs\.db cannot be opened"):
        Store(tmp_path)
    (tmp_path / "jobs.db").unlink()
    Store(tmp_path).close()  # the lock was given back
    with sqlite3.connect(tmp_path / "jobs.db") as later:
        later.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="version 99"):
        Store(tmp_path)


def test_locked(store, monkeypatch):
    """Reads go on; a write says that it could not, and the next one works."""
    monkeypatch.setattr("kandinsky.serving.database.WAIT", 0.1)
    store._database._writer.execute("PRAGMA busy_timeout = 100")
    other = sqlite3.connect(store.folder / "jobs.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        new(store)
    assert store.counts()["queued"] == 0
    other.execute("ROLLBACK")
    other.close()
    new(store)


WRITER = """
import sys
from pathlib import Path
from kandinsky.serving.store import Store
from serving_kit import ASKED
with Store(Path(sys.argv[1])) as store:
    while True:
        print(store.create([ASKED], owner="me")[0].id, flush=True)
"""


@pytest.mark.slow
def test_killed_while_it_writes(tmp_path):
    """Whatever was answered is there; also if the file's end is cut off, what stood before it."""
    path = os.pathsep.join(sys.path)
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path})
    answered = [process.stdout.readline().strip() for _ in range(50)]
    process.send_signal(signal.SIGKILL)
    answered += process.stdout.read().split("\n")[:-1]
    process.wait()
    cut = tmp_path / "cut"
    cut.mkdir()
    for name in ("jobs.db", "jobs.db-wal"):
        shutil.copy(tmp_path / name, cut / name)
    os.truncate(cut / "jobs.db-wal", (cut / "jobs.db-wal").stat().st_size - 1000)
    with Store(tmp_path) as store:
        assert set(answered) <= {job.id for job in store.page(owner="me", limit=10**6)[0]}
        assert store._database.one("PRAGMA integrity_check")[0] == "ok"
    with Store(cut) as store:
        assert set(answered[:40]) <= {job.id for job in store.page(owner="me", limit=10**6)[0]}
        assert store._database.one("PRAGMA integrity_check")[0] == "ok"
