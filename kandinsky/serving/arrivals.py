"""New jobs, noted in one transaction: a repeated key gives the job that it gave before, a full queue takes none."""

import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from kandinsky.serving.database import job_of
from kandinsky.serving.job import Asked, Job, new_id


class OtherBodyError(Exception):
    """An Idempotency-Key came again with another body."""


class FullError(Exception):
    """The queue, or one key's share of it, is full; the message says which."""


@dataclass(frozen=True, kw_only=True)
class Arrival:
    """Jobs that come together.

    Args:
        asked: what each is to be.
        owner: name of the key that they were posted with.
        repeat: an Idempotency-Key and a digest of the body: the same ones again give the same jobs. For one job.
        most_queued: jobs that may wait, of all owners.
        most_of_owner: jobs of this owner that may be open.
        folder: with the inputs of one job; it becomes the job's own.
    """

    asked: tuple[Asked, ...]
    owner: str
    repeat: tuple[str, str] | None = None
    most_queued: int | None = None
    most_of_owner: int | None = None
    folder: Path | None = None

    def note(self, database: sqlite3.Connection, files: Path, *, now: float) -> list[Job]:
        """The jobs, in the database.

        Args:
            files: where the jobs' own folders are.
            now: seconds since 1970.

        Raises:
            OtherBodyError: the key came with another body before.
            FullError: there is no room; nothing was noted.
            OSError: the folder cannot be moved.
        """
        key, body = self.repeat or (None, None)
        if key is not None:
            found = database.execute("SELECT * FROM jobs WHERE owner = ? AND repeat_key = ?", (self.owner, key))
            row = found.fetchone()
            if row is not None and row["repeat_body"] != body:
                raise OtherBodyError
            if row is not None:
                return [job_of(row)]
        self._check_room(database)
        jobs, size = [], 0 if self.folder is None else sum(file.stat().st_size for file in self.folder.iterdir())
        for one in self.asked:
            new = database.execute(
                "INSERT INTO jobs (id, owner, status, asked, created, size, repeat_key, repeat_body) "
                "VALUES (?, ?, 'queued', ?, ?, ?, ?, ?) RETURNING *",
                (new_id(one.kind), self.owner, one.to_json(), now, size, key, body),
            )
            jobs.append(job_of(new.fetchone()))
        if self.folder is not None:  # before any worker can see the job; without the commit it is removed at a start
            self.folder.rename(files / jobs[0].id)
            force(files)
        return jobs

    def _check_room(self, database: sqlite3.Connection) -> None:
        new = len(self.asked)
        if self.most_queued is not None:
            (queued,) = database.execute("SELECT count(*) FROM jobs WHERE status = 'queued'").fetchone()
            if queued + new > self.most_queued:
                raise FullError(f"{queued} jobs wait already, and {self.most_queued} may (--max-queue)")
        if self.most_of_owner is not None:
            (mine,) = database.execute(
                "SELECT count(*) FROM jobs INDEXED BY open_by_owner "
                "WHERE owner = ? AND status IN ('queued', 'in_progress')",
                (self.owner,),
            ).fetchone()
            if mine + new > self.most_of_owner:
                raise FullError(
                    f"{mine} jobs of this key wait or run, and {self.most_of_owner} may (--max-jobs-per-key)"
                )


def force(folder: Path) -> None:
    """The names in a folder onto the disk, where the system has that."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
