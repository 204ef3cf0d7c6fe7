"""What is deleted, and what is not."""

import pytest
from serving_kit import ASKED

from kandinsky.serving.retention import DAY, Limits, tidy, too_much
from kandinsky.serving.store import Store


@pytest.fixture
def store(tmp_path):
    now = [0.0]
    with Store(tmp_path, clock=lambda: now[0]) as store:
        store.now = now
        yield store


def done(store, at, size=10, *, fetched=True):
    store.now[0] = at
    (job,) = store.create([ASKED], owner="me")
    store.claim()
    store.finish(job.id, "completed", size=size)
    if fetched:
        store.fetched(job.id)
    return job.id


def test_old_ones(store):
    old, new = done(store, 0), done(store, DAY)
    waits = store.create([ASKED], owner="me")[0].id
    store.folder_of(old).mkdir()
    store.now[0] = 2.5 * DAY
    assert tidy(store, Limits(keep_days=2)) == [old]
    assert not store.folder_of(old).exists()
    assert store.get(new) and store.get(waits)


def test_the_oldest_until_there_is_room(store):
    ids = [done(store, second) for second in range(5)]
    goes = [job.id for job in too_much(store.ended(), Limits(disk_bytes=25), now=10.0)]
    assert goes == ids[:3]


def test_one_that_nobody_has_yet_stays_for_an_hour(store):
    ids = [done(store, second, fetched=False) for second in range(3)]
    assert tidy(store, Limits(keep_days=0.001, disk_bytes=1)) == []
    store.now[0] = 3601.5
    assert tidy(store, Limits(disk_bytes=1)) == ids[:2]


def test_a_clock_that_was_set_back(store):
    done(store, 10 * DAY)
    store.now[0] = 0.0
    assert tidy(store, Limits(keep_days=2)) == []
