"""The file of jobs: SQLite in WAL mode, one connection that writes and one that reads; any thread may call.

A thread of its own writes. What comes while it commits is written by the next commit, together: it is forced to the
disk, where a writer asks for that, before any of them is answered, and many clients need few commits. A reader never
waits for a writer.
"""

import json
import sqlite3
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import SimpleQueue
from threading import Lock, RLock, Thread
from typing import Any, TypeVar

from kandinsky.serving.job import Asked, Job

T = TypeVar("T")
_Write = tuple[Callable[[sqlite3.Connection], Any], Future, bool]
TOGETHER = 256
"""Writes in a transaction at most."""

WAIT = 5.0
"""Seconds that a write waits for another process that has locked the database."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, status TEXT NOT NULL,
    asked TEXT NOT NULL, created REAL NOT NULL, started REAL, finished REAL,
    kills INTEGER NOT NULL DEFAULT 0, cancelled INTEGER NOT NULL DEFAULT 0, code TEXT, reason TEXT, timings TEXT,
    size INTEGER NOT NULL DEFAULT 0, downloaded INTEGER NOT NULL DEFAULT 0, repeat_key TEXT, repeat_body TEXT);
CREATE INDEX IF NOT EXISTS by_status ON jobs (status, number);
CREATE INDEX IF NOT EXISTS by_owner ON jobs (owner, number);
CREATE INDEX IF NOT EXISTS open_by_owner ON jobs (owner) WHERE status IN ('queued', 'in_progress');
CREATE UNIQUE INDEX IF NOT EXISTS by_repeat_key ON jobs (owner, repeat_key) WHERE repeat_key IS NOT NULL;
"""
VERSION = 1


class Database:
    """The file at `path`, made if it is not there.

    Raises:
        sqlite3.Error: it is damaged, or of a later version of this library.
    """

    def __init__(self, path: Path):
        self._path = path
        self._reads = RLock()
        self._posts, self._closed = Lock(), False
        self._writer, self._reader = self._open(), self._open()
        self._file = _mark(path)
        self._inbox: SimpleQueue[_Write | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="database", daemon=True)
        self._thread.start()

    def write(self, do: Callable[[sqlite3.Connection], T], *, forced: bool = False) -> T:
        """What `do` returns; all of what it writes is in the file then, or nothing of it.

        Args:
            forced: a power cut does not lose it either. Of writes that are not, it may lose the last ones; the end of
                this process loses none.

        Raises:
            Exception: of `do`, or sqlite3's.
        """
        return self.post(do, forced=forced).result()

    def post(self, do: Callable[[sqlite3.Connection], T], *, forced: bool = False) -> Future[T]:
        """The same without waiting."""
        future: Future[T] = Future()
        future.set_running_or_notify_cancel()  # who goes away meanwhile does not undo it
        with self._posts:
            if self._closed:
                future.set_exception(sqlite3.ProgrammingError("the database is closed"))
            else:
                self._inbox.put((do, future, forced))
        return future

    def all(self, query: str, *values: object) -> list[sqlite3.Row]:
        """What a query finds."""
        with self._reads:
            return self._reader.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> sqlite3.Row | None:
        """The first that a query finds."""
        with self._reads:
            return self._reader.execute(query, values).fetchone()

    def close(self) -> None:
        """Do what was asked for, and close both connections."""
        with self._posts:
            self._closed = True
            self._inbox.put(None)
        self._thread.join()
        with self._reads:
            self._reader.close()
            self._writer.close()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, this library knows {VERSION}")
        database.executescript(SCHEMA)
        return database

    def _work(self) -> None:
        ended = False
        while not ended:
            some = [self._inbox.get()]
            while not self._inbox.empty() and len(some) < TOGETHER:
                some.append(self._inbox.get())
            ended = None in some
            self._commit([write for write in some if write is not None])

    def _commit(self, writes: list[_Write]) -> None:
        """Several writes in one transaction, each undone alone if it fails."""
        ends: list[tuple[Future, object, BaseException | None]] = []
        try:
            if _mark(self._path) != self._file:
                raise sqlite3.OperationalError(
                    f"{self._path.name} is not where it was: its folder was moved or removed"
                )
            # A commit that forces the log forces what was written to it before, too.
            forced = any(forced for _, _, forced in writes)
            self._writer.execute(f"PRAGMA synchronous = {'FULL' if forced else 'NORMAL'}")
            self._writer.execute("BEGIN IMMEDIATE")
            for do, future, _ in writes:
                value, error = self._try(do)
                if error is not None and not self._writer.in_transaction:
                    raise error  # a full disk, say: SQLite has undone all of it
                ends.append((future, value, error))
            self._writer.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001  # for whoever waits for it
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            ends = [(future, None, error) for _, future, _ in writes]
        for future, value, error in ends:
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)

    def _try(self, do: Callable[[sqlite3.Connection], object]) -> tuple[object, BaseException | None]:
        self._writer.execute("SAVEPOINT one")
        try:
            value = do(self._writer)
        except BaseException as error:  # noqa: BLE001  # as above
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK TO one")
                self._writer.execute("RELEASE one")
            return None, error
        self._writer.execute("RELEASE one")
        return value, None


def _mark(path: Path) -> tuple[int, int] | None:
    """What tells a file from another at the same place; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def job_of(row: sqlite3.Row) -> Job:
    """The job of a line."""
    names = ("number", "id", "owner", "status", "created", "started", "finished", "kills", "code", "reason", "size")
    return Job(
        **{name: row[name] for name in names},
        asked=Asked.from_json(row["asked"]),
        cancelled=bool(row["cancelled"]),
        downloaded=bool(row["downloaded"]),
        timings=json.loads(row["timings"] or "{}"),
    )
