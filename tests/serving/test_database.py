"""The file of jobs: writes that come together, one that fails among them, and files that cannot be used."""

import sqlite3
import threading
from contextlib import closing

import pytest
from helpers import LONG

from kandinsky.serving.database import VERSION, Database

INSERT = "INSERT INTO jobs (id, owner, status, asked, created) VALUES (?, 'me', 'queued', '{}', 0)"


@pytest.fixture
def database(tmp_path):
    with closing(Database(tmp_path / "jobs.db")) as database:
        yield database


def insert(name):
    return lambda connection: connection.execute(INSERT, (name,)).rowcount


def names(database):
    return [row["id"] for row in database.all("SELECT id FROM jobs ORDER BY number")]


class Held:
    """Keeps the writer busy, so that what is posted meanwhile comes together."""

    def __init__(self, database):
        self._go, began = threading.Event(), threading.Event()
        self._end = database.post(lambda _: (began.set(), self._go.wait(LONG)))
        assert began.wait(LONG)

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self._go.set()
        self._end.result(LONG)


def test_what_is_written_is_read_by_another_connection(database, tmp_path):
    assert database.write(insert("a"), forced=True) == 1
    with closing(sqlite3.connect(tmp_path / "jobs.db")) as other:
        assert other.execute("SELECT id FROM jobs").fetchall() == [("a",)]
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_one_that_fails_among_others_is_undone_alone(database):
    def half(connection):
        connection.execute(INSERT, ("half",))
        raise ValueError("no")

    with Held(database):
        futures = [database.post(do) for do in (insert("a"), half, insert("a"), insert("b"))]
    assert futures[0].result(LONG) == 1
    with pytest.raises(ValueError, match="no"):
        futures[1].result(LONG)
    with pytest.raises(sqlite3.IntegrityError):
        futures[2].result(LONG)
    assert futures[3].result(LONG) == 1
    assert names(database) == ["a", "b"]


def test_writes_are_done_in_the_order_of_their_posts(database):
    with Held(database):
        futures = [database.post(insert(str(number)), forced=number % 3 == 0) for number in range(600)]
    for future in futures:
        future.result(LONG)
    assert names(database) == [str(number) for number in range(600)]


def test_many_threads_write_and_read(database):
    def work(thread):
        for number in range(20):
            database.write(insert(f"{thread}-{number}"))
            assert database.one("SELECT id FROM jobs WHERE id = ?", f"{thread}-{number}") is not None

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names(database)) == 160


def test_numbers_never_come_twice(database):
    database.write(insert("a"))
    database.write(lambda connection: connection.execute("DELETE FROM jobs"))
    database.write(insert("b"))
    assert database.one("SELECT number FROM jobs")["number"] == 2


def test_one_who_goes_away_does_not_undo_it(database):
    with Held(database):
        future = database.post(insert("a"))
        assert not future.cancel()
    future.result(LONG)
    assert names(database) == ["a"]


def test_what_was_posted_before_the_end_is_done(tmp_path):
    database = Database(tmp_path / "jobs.db")
    with Held(database):
        futures = [database.post(insert(str(number))) for number in range(10)]
    database.close()
    assert all(future.done() for future in futures)
    with closing(Database(tmp_path / "jobs.db")) as again:
        assert len(names(again)) == 10


def test_after_the_end_nobody_waits_for_ever(tmp_path):
    database = Database(tmp_path / "jobs.db")
    database.close()
    with pytest.raises(sqlite3.ProgrammingError):
        database.post(insert("late")).result(LONG)


def test_a_file_that_is_none(tmp_path):
    (tmp_path / "text.db").write_text("no database" * 1000)
    (tmp_path / "folder.db").mkdir()
    for name in ("text.db", "folder.db", "no/jobs.db"):
        with pytest.raises(sqlite3.Error):
            Database(tmp_path / name)
    with closing(sqlite3.connect(tmp_path / "later.db")) as later:
        later.execute(f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(sqlite3.DatabaseError, match=f"version {VERSION + 1}, this library knows {VERSION}"):
        Database(tmp_path / "later.db")
