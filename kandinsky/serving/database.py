"""The file of jobs: SQLite in WAL mode, one connection that writes and one that reads.

Each has a lock, so that any thread may call, and a reader never waits for a writer. A commit is forced to the disk.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock

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
        self._writes, self._reads = RLock(), RLock()
        self._writer, self._reader = self._open(), self._open()

    def _open(self) -> sqlite3.Connection:
        database = sqlite3.connect(self._path, timeout=WAIT, isolation_level=None, check_same_thread=False)
        database.row_factory = sqlite3.Row
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = FULL")
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if version > VERSION:
            raise sqlite3.DatabaseError(f"it is of version {version}, this library knows {VERSION}")
        database.executescript(SCHEMA)
        return database

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction of its own; it is undone if the body fails."""
        with self._writes:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def all(self, query: str, *values: object) -> list[sqlite3.Row]:
        """What a query finds."""
        with self._reads:
            return self._reader.execute(query, values).fetchall()

    def one(self, query: str, *values: object) -> sqlite3.Row | None:
        """The first that a query finds."""
        with self._reads:
            return self._reader.execute(query, values).fetchone()

    def close(self) -> None:
        """Close both connections."""
        with self._writes, self._reads:
            self._reader.close()
            self._writer.close()
