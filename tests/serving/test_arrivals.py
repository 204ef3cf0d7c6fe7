"""New jobs: keys that repeat, and room."""

import dataclasses

import pytest
from serving_kit import ASKED

from kandinsky.serving.arrivals import Arrival, FullError, OtherBodyError
from kandinsky.serving.store import Store


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path) as store:
        yield store


def come(store, count=1, **settings):
    return store.create_soon(Arrival(asked=(ASKED,) * count, **{"owner": "me", **settings})).result()


def test_several_come_in_their_order_with_ids_that_cannot_be_guessed(store):
    asked = tuple(dataclasses.replace(ASKED, seed=seed) for seed in range(3))
    jobs = store.create_soon(Arrival(asked=asked, owner="me")).result()
    assert [job.asked for job in jobs] == list(asked)
    assert [job.number for job in jobs] == sorted(job.number for job in jobs)
    assert {len(job.id) for job in jobs} == {len("video_") + 24}
    assert {job.status for job in jobs} == {"queued"}
    (image,) = store.create_soon(
        Arrival(asked=(dataclasses.replace(ASKED, time_length=0, ending=".png"),), owner="me")
    ).result()
    assert image.id.startswith("image_")


def test_all_come_or_none(store):
    come(store, 2, most_queued=4)
    with pytest.raises(FullError, match="2 jobs wait already, and 4 may"):
        come(store, 3, most_queued=4)
    with pytest.raises(FullError, match="2 jobs of this key wait or run, and 4 may"):
        come(store, 3, most_of_owner=4)
    assert store.counts()["queued"] == 2
    assert len(come(store, 2, most_queued=4, most_of_owner=4)) == 2


def test_what_runs_takes_a_keys_room_but_none_of_the_queue(store):
    come(store)
    store.claim()
    come(store, most_queued=1)
    with pytest.raises(FullError, match="of this key"):
        come(store, most_of_owner=2)


def test_what_has_ended_takes_no_room(store):
    (job,) = come(store, most_of_owner=1)
    store.claim()
    store.finish(job.id, "failed", code="x", reason="y")
    (next_one,) = come(store, most_of_owner=1, most_queued=1)
    assert next_one.id != job.id


def test_a_key_repeats_what_was_made_though_there_is_no_room(store):
    first = come(store, repeat=("k", "b"), most_queued=1)
    assert come(store, repeat=("k", "b"), most_queued=1, most_of_owner=1) == first
    with pytest.raises(OtherBodyError):
        come(store, repeat=("k", "c"), most_queued=1)


def test_one_that_failed_for_want_of_room_has_not_used_its_key(store):
    (job,) = come(store)
    with pytest.raises(FullError):
        come(store, repeat=("k", "b"), most_queued=1)
    store.claim()
    store.finish(job.id, "completed")
    assert come(store, repeat=("k", "c"), most_queued=1)[0].id != job.id


def test_many_at_once_with_one_key_are_one_job(store):
    arrival = Arrival(asked=(ASKED,), owner="me", repeat=("k", "b"))
    futures = [store.create_soon(arrival) for _ in range(50)]
    assert len({future.result()[0].id for future in futures}) == 1
    assert store.counts()["queued"] == 1


def test_files_that_come_with_a_job_count_from_the_beginning(store):
    folder = store.files / "upload_1"
    folder.mkdir()
    (folder / "given_image.png").write_bytes(b"12345")
    (job,) = come(store, folder=folder)
    assert job.size == 5
    store.cancel(job.id)
    assert (store.get(job.id).status, store.get(job.id).size) == ("cancelled", 5)
