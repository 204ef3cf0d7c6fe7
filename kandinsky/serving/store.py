"""Jobs on disk: SQLite in WAL mode, in one folder with a folder of files for each job.

A job is there when `create` returns: the line was forced to the disk. Everything that happens later may be lost by a
power cut without harm, since a job that is not noted as completed is looked at again: its file, if it is complete, is
taken as it stands. The order of the queue is the order of arrival, by a number and never by a clock.

Any thread may call. Two servers on one folder would start each other's jobs: the second is refused.
"""

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path

from filelock import FileLock, Timeout

from kandinsky.atomic import remove
from kandinsky.serving.arrivals import Arrival
from kandinsky.serving.database import Database, job_of
from kandinsky.serving.job import ID, STATUSES, UPLOAD, Asked, Job, Kind, Status

MAX_NUMBER = 2**63 - 1


class Store:
    """The jobs in `folder`, made if it is not there. Close it, or use it as a context manager.

    Args:
        clock: seconds since 1970.

    Raises:
        ValueError: another server uses the folder, or it cannot be used.
    """

    def __init__(self, folder: Path, *, clock: Callable[[], float] = time.time):
        self.folder = folder
        self.clock = clock
        try:
            self.files.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(folder / ".lock", timeout=0)
            self._lock.acquire()
        except Timeout:
            raise ValueError(f"data={str(folder)!r}: another server works in this folder") from None
        except OSError as error:
            raise ValueError(f"data={str(folder)!r}: must be a folder that is there or can be made: {error}") from error
        try:
            self._database = Database(folder / "jobs.db")
        except sqlite3.Error as error:
            self._lock.release()
            raise ValueError(f"data={str(folder)!r}: jobs.db cannot be opened: {error}") from error

    @property
    def files(self) -> Path:
        """Where the jobs' own folders are."""
        return self.folder / "jobs"

    def folder_of(self, job_id: str) -> Path:
        """A job's own folder."""
        return self.files / job_id

    def file_of(self, job: Job) -> Path:
        """Where a job's result is or will be."""
        return self.folder_of(job.id) / job.asked.file_name

    def create(
        self,
        asked: Sequence[Asked],
        *,
        owner: str,
        repeat: tuple[str, str] | None = None,
        most_queued: int | None = None,
        most_of_owner: int | None = None,
    ) -> list[Job]:
        """Note new jobs; they are on the disk when this returns.

        Arguments and errors are those of an `Arrival`; and an `sqlite3.Error` if it could not be written.
        """
        return self.create_soon(
            Arrival(
                asked=tuple(asked),
                owner=owner,
                repeat=repeat,
                most_queued=most_queued,
                most_of_owner=most_of_owner,
            )
        ).result()

    def create_soon(self, arrival: Arrival) -> Future[list[Job]]:
        """The same for whoever cannot wait here: done when they are on the disk, or will not be."""
        return self._database.post(lambda database: arrival.note(database, self.files, now=self.clock()), forced=True)

    def get(self, job_id: str, *, owner: str | None = None) -> Job | None:
        """A job; None if there is none, or it is another owner's."""
        if not ID.fullmatch(job_id):  # it may be anything that a client says
            return None
        row = self._database.one("SELECT * FROM jobs WHERE id = ?", job_id)
        return None if row is None or owner not in (None, row["owner"]) else job_of(row)

    def page(
        self, *, owner: str, limit: int, after: int | None = None, ascending: bool = False, kind: Kind | None = "video"
    ) -> tuple[list[Job], bool]:
        """Jobs of an owner by arrival, and whether there are more.

        Args:
            after: number of the job before the first.
            kind: of the jobs; None is all.
        """
        if ascending:
            query, bound = "number > ? ORDER BY number ASC", 0
        else:
            query, bound = "number < ? ORDER BY number DESC", MAX_NUMBER
        rows = self._database.all(
            f"SELECT * FROM jobs WHERE owner = ? AND id LIKE ? AND {query} LIMIT ?",  # noqa: S608  # one of two
            owner,
            f"{kind or ''}%",
            bound if after is None else after,
            limit + 1,
        )
        return [job_of(row) for row in rows[:limit]], len(rows) > limit

    def place(self, job: Job) -> int:
        """How many jobs come before a queued one."""
        row = self._database.one("SELECT count(*) AS n FROM jobs WHERE status = 'queued' AND number < ?", job.number)
        assert row is not None
        return row["n"]

    def claim(self, *, fits: Callable[[Job], bool] = lambda _job: True) -> Job | None:
        """Take the queued job that came first; None if there is none, or it does not fit."""
        first = "SELECT * FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1"

        def do(database: sqlite3.Connection) -> Job | None:
            row = database.execute(first).fetchone()
            if row is None or not fits(job_of(row)):
                return None
            values = (self.clock(), row["id"])
            database.execute("UPDATE jobs SET status = 'in_progress', started = ? WHERE id = ?", values)
            return job_of(row)

        if self._database.one(first) is None:  # asked after every message: no transaction for nothing
            return None
        return self._database.write(do)

    def finish(
        self,
        job_id: str,
        status: Status,
        *,
        code: str | None = None,
        reason: str | None = None,
        timings: dict[str, float] | None = None,
        size: int | None = None,
    ) -> bool:
        """Note the end of a job; False if it was deleted meanwhile, or had ended before.

        Args:
            size: bytes of its files; None: there are its inputs alone, as before.
        """

        def do(database: sqlite3.Connection) -> bool:
            done = database.execute(
                "UPDATE jobs SET status = ?, code = ?, reason = ?, timings = ?, size = ifnull(?, size), finished = ? "
                "WHERE id = ? AND status IN ('queued', 'in_progress')",
                (status, code, reason, json.dumps(timings) if timings else None, size, self.clock(), job_id),
            )
            return done.rowcount > 0

        return self._database.write(do)

    def requeue(self, job_id: str, *, killed: bool) -> Job | None:
        """Put a job back to its old place, since its worker is gone; its new state, None if it was deleted.

        Args:
            killed: the worker died, which counts against the job.
        """

        def do(database: sqlite3.Connection) -> Job | None:
            database.execute(
                "UPDATE jobs SET status = 'queued', started = NULL, kills = kills + ? "
                "WHERE id = ? AND status = 'in_progress'",
                (int(killed), job_id),
            )
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return None if row is None else job_of(row)

        return self._database.write(do)

    def cancel(self, job_id: str) -> Job | None:
        """End a queued job, and mark one that runs; the job as it is then, None if it was deleted."""

        def do(database: sqlite3.Connection) -> Job | None:
            database.execute(
                "UPDATE jobs SET status = 'cancelled', cancelled = 1, finished = ? WHERE id = ? AND status = 'queued'",
                (self.clock(), job_id),
            )
            database.execute("UPDATE jobs SET cancelled = 1 WHERE id = ? AND status = 'in_progress'", (job_id,))
            row = database.execute("SELECT * FROM jobs WHERE id = ?", (job_id,)).fetchone()
            return None if row is None else job_of(row)

        return self._database.write(do, forced=True)

    def fetched(self, job_id: str) -> None:
        """Note that the owner has the file."""

        def do(database: sqlite3.Connection) -> None:
            database.execute("UPDATE jobs SET downloaded = 1 WHERE id = ?", (job_id,))

        self._database.write(do)

    def delete(self, job_id: str) -> None:
        """Forget a job and remove its files; those of one that runs go when it ends, since its worker writes there."""

        def do(database: sqlite3.Connection) -> sqlite3.Row | None:
            return database.execute("DELETE FROM jobs WHERE id = ? RETURNING status", (job_id,)).fetchone()

        row = self._database.write(do, forced=True)
        if row is not None and row["status"] != "in_progress":
            remove(self.folder_of(job_id))

    def recover(self) -> list[str]:
        """Put back what ran when the last server ended, remove files of jobs that are gone; ids of the former."""

        def do(database: sqlite3.Connection) -> tuple[list[str], set[str]]:
            ids = [row["id"] for row in database.execute("SELECT id FROM jobs WHERE status = 'in_progress'")]
            database.execute(
                "UPDATE jobs SET status = 'cancelled', finished = ? WHERE status = 'in_progress' AND cancelled",
                (self.clock(),),
            )
            database.execute("UPDATE jobs SET status = 'queued', started = NULL WHERE status = 'in_progress'")
            return ids, {row["id"] for row in database.execute("SELECT id FROM jobs")}

        ids, known = self._database.write(do)
        for path in self.files.iterdir():
            ours = ID.fullmatch(path.name) or UPLOAD.fullmatch(path.name)
            if ours and path.name not in known:  # what somebody else put there stays
                remove(path)
        return ids

    def ended(self) -> list[Job]:
        """All jobs that have ended, first come first."""
        rows = self._database.all("SELECT * FROM jobs WHERE status NOT IN ('queued', 'in_progress') ORDER BY number")
        return [job_of(row) for row in rows]

    def counts(self) -> dict[Status, int]:
        """How many jobs are in each state."""
        rows = self._database.all("SELECT status, count(*) AS n FROM jobs GROUP BY status")
        found = {row["status"]: row["n"] for row in rows}
        return {status: found.get(status, 0) for status in STATUSES}

    def oldest_queued(self) -> float | None:
        """Seconds that the first of the queue has waited; None if it is empty."""
        row = self._database.one("SELECT created FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1")
        return None if row is None else max(0.0, self.clock() - row["created"])

    def close(self) -> None:
        """Close the database and let others have the folder."""
        self._database.close()
        self._lock.release()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
