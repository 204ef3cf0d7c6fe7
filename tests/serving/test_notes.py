"""Ends of jobs into the store, however long it cannot take them."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from serving_kit import ASKED, names_in

from kandinsky.serving import notes as notes_module
from kandinsky.serving.messages import Done, Gone
from kandinsky.serving.notes import MAX_KILLS, Notes
from kandinsky.serving.store import Store


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(notes_module, "RETRY", 0.0)
    with Store(tmp_path) as store:
        store.lines, store.seconds = [], []
        yield store


@pytest.fixture
def notes(store):
    return Notes(
        store, lambda event, **facts: store.lines.append((event, facts)), lambda *both: store.seconds.append(both)
    )


def running(store):
    store.create([ASKED], owner="me")
    job = store.claim()
    store.folder_of(job.id).mkdir()
    return store.get(job.id)


def test_a_file_that_lies_there_is_the_result(store, notes):
    job = running(store)
    store.file_of(job).write_bytes(b"12345")
    notes.completed(job, Done(job.id, {"sample": 1.0}))
    done = store.get(job.id)
    assert (done.status, done.size, done.timings, store.seconds) == ("completed", 5, {"sample": 1.0}, [("sample", 1.0)])
    assert store.lines == [("job completed", {"job": job.id})]


def test_a_file_that_came_by_message_is_put_there_whole(store, notes):
    job = running(store)
    notes.completed(job, Done(job.id, content=b"video"))
    assert store.file_of(job).read_bytes() == b"video"
    assert names_in(store.files) == [f"{job.id}/video.mp4"]
    empty = running(store)
    notes.completed(empty, Done(empty.id, content=b""))
    assert store.file_of(empty).read_bytes() == b""


def test_a_file_that_vanishes_while_sizes_are_added_up_leaves_no_job_open(store, notes, monkeypatch):
    job = running(store)
    store.file_of(job).write_bytes(b"12345")
    gone = store.folder_of(job.id) / "v.latents.safetensors"
    found = [[gone, store.file_of(job)], [store.file_of(job)]]
    monkeypatch.setattr(Path, "is_file", lambda _path: True)
    monkeypatch.setattr(Path, "rglob", lambda *_: found.pop(0))
    notes.completed(job, Done(job.id))
    assert (store.get(job.id).status, store.get(job.id).size) == ("completed", 5)


def test_one_that_was_cancelled_or_deleted_meanwhile_leaves_nothing(store, notes):
    for end in (store.cancel, store.delete):
        job = running(store)
        end(job.id)
        notes.completed(store.get(job.id) or job, Done(job.id, {"sample": 1.0}, content=b"video"))
        assert not store.folder_of(job.id).exists()
    assert store.counts()["cancelled"] == 1
    assert store.seconds == []  # what was thrown away is no measure


def test_a_worker_that_is_gone_counts_only_if_it_was_killed(store, notes):
    job = running(store)
    for _ in range(3):
        notes.lost(job, Gone("told to stop"), killed=False)
        assert store.claim().kills == 0
    for kills in range(1, MAX_KILLS):
        notes.lost(job, Gone("exit code -9"), killed=True)
        assert store.claim().kills == kills
    notes.lost(job, Gone("exit code -11"), killed=True)
    failed = store.get(job.id)
    assert (failed.status, failed.code) == ("failed", "worker_died")
    assert "exit code -11" in failed.reason


def test_a_worker_that_is_gone_with_a_job_that_was_to_end(store, notes):
    for end, left in ((store.cancel, "cancelled"), (store.delete, None)):
        job = running(store)
        end(job.id)
        notes.lost(job, Gone("exit code -9"), killed=True)
        found = store.get(job.id)
        assert (found and found.status) == left
        assert not store.folder_of(job.id).exists()


@pytest.mark.parametrize(
    "error", [sqlite3.OperationalError("database is locked"), OSError(28, "No space left on device")]
)
def test_it_is_tried_until_it_can_be_noted(store, notes, error, monkeypatch):
    job = running(store)
    fails = iter([error] * 3)
    finish = store.finish

    def sometimes(*args, **settings):
        for raised in fails:
            raise raised
        return finish(*args, **settings)

    monkeypatch.setattr(store, "finish", sometimes)
    notes.completed(job, Done(job.id, content=b"video"))
    assert store.get(job.id).status == "completed"
    assert [event for event, _ in store.lines] == ["store failed, tries again"] * 3 + ["job completed"]


def test_files_that_cannot_be_removed_are_no_end_of_the_server(store, notes, monkeypatch):
    def fail(_path):
        raise PermissionError("not yours")

    job = running(store)
    store.cancel(job.id)
    monkeypatch.setattr(notes_module, "remove", fail)
    notes.completed(store.get(job.id), Done(job.id))
    assert store.get(job.id).status == "cancelled"
    assert ("files stay", {"job": job.id, "error": "not yours"}) in store.lines


def test_why_a_job_failed_is_in_the_log_and_its_prompt_is_not(store, notes):
    job = running(store)
    notes.ended(job, "failed", code="disk_full", reason="No space")
    assert store.lines == [("job failed", {"job": job.id, "code": "disk_full", "error": "No space"})]


def test_a_fault_of_ours_is_not_tried_for_ever(store, notes, monkeypatch):
    def fail(*_args, **_settings):
        raise sqlite3.ProgrammingError("a type that no column takes")

    job = running(store)
    monkeypatch.setattr(store, "finish", fail)
    with pytest.raises(sqlite3.ProgrammingError):
        notes.completed(job, Done(job.id, content=b"video"))


def test_an_end_without_timings_is_noted(store, notes):
    """So ends a job whose file was complete when the last server was killed."""
    job = running(store)
    store.file_of(job).write_bytes(b"video")
    notes.completed(job, Done(job.id, {}))
    assert (store.get(job.id).status, store.get(job.id).timings) == ("completed", {})


def test_what_a_cancelled_job_was_made_from_stays_and_can_be_used_again(store, notes):
    asked = replace(ASKED, inputs={"video": "given_video.mp4"})
    for end, left in ((store.cancel, ["given_video.mp4"]), (store.delete, [])):
        store.create([asked], owner="me")
        job = store.claim()
        folder = store.folder_of(job.id)
        (folder / "video.pieces").mkdir(parents=True)
        for name in ("given_video.mp4", ".video-12345678.partial.mp4", "video.pieces/0.mp4"):
            (folder / name).write_bytes(b"video")
        end(job.id)
        notes.completed(store.get(job.id) or job, Done(job.id, content=b"video"))
        assert (names_in(folder) if folder.exists() else []) == left
