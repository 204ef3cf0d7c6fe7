"""The end of a job, noted in the store: however long the disk is full or the database locked.

The work is done, and a job whose end is not noted would be made again.
"""

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kandinsky.atomic import remove, replacing
from kandinsky.serving.job import Job, Status
from kandinsky.serving.messages import Done, Gone
from kandinsky.serving.store import Store

MAX_KILLS = 2
"""Workers that a job may take with it."""
RETRY = 0.5
"""Seconds between attempts."""
Log = Callable[..., object]
"""(what happened, **facts)"""


class Notes:
    """Notes ends.

    Args:
        store: of the jobs.
        log: is told what happens.
        seconds: is told how long each stage of a completed job took.
    """

    def __init__(self, store: Store, log: Log, seconds: Callable[[str, float], object]):
        self._store = store
        self._log = log
        self._seconds = seconds

    def completed(self, job: Job, message: Done) -> None:
        """Its file is complete; or the job was cancelled while it was finished."""
        file = self._store.file_of(job)
        if job.cancelled:
            self.ended(job, "cancelled")
            return
        content = message.content
        if content is not None:
            self.insist(lambda: _write(file, content))
        size = self.insist(lambda: sum(path.stat().st_size for path in file.parent.rglob("*") if path.is_file()))
        if self.ended(job, "completed", timings=dict(message.timings), size=size):
            for stage, seconds in message.timings.items():
                self._seconds(stage, seconds)

    def ended(self, job: Job, status: Status, **facts: Any) -> bool:
        """It has ended; False if it was deleted meanwhile."""
        noted = self.insist(lambda: self._store.finish(job.id, status, **facts))
        if not noted:
            self._remove(self._store.folder_of(job.id))
        elif status == "cancelled":
            self._remove_made(job)
        why = {"code": facts["code"], "error": facts["reason"]} if "code" in facts else {}
        self._log(f"job {status}", job=job.id, **why)
        return bool(noted)

    def _remove_made(self, job: Job) -> None:
        """All that was made; what it was made from stays with the job, which can be asked for once more."""
        folder = self._store.folder_of(job.id)
        if not job.asked.inputs:
            self._remove(folder)
        else:
            for path in folder.glob("*"):
                if path.name not in job.asked.inputs.values():
                    self._remove(path)

    def _remove(self, path: Path) -> None:
        """What belongs to a job; what stays is removed with the job, or at the next start if that is forgotten."""
        try:
            remove(path)
        except OSError as error:
            self._log("files stay", job=path.relative_to(self._store.files).parts[0], error=str(error))

    def lost(self, job: Job, message: Gone, *, killed: bool) -> None:
        """Its worker is gone: it goes back to its place, or ends if it is to end.

        Args:
            killed: the worker ended unasked, which counts against the job.
        """
        again = self.insist(lambda: self._store.requeue(job.id, killed=killed))
        if again is None or again.cancelled:
            self.ended(job, "cancelled")
        elif again.kills >= MAX_KILLS:
            reason = f"{again.kills} workers ended while they made it, the last one with {message.how}"
            self.ended(job, "failed", code="worker_died", reason=reason)
        else:
            self._log("job requeued", job=job.id, reason=message.how)

    def insist(self, note: Callable[[], Any]) -> Any:
        """Do what must be done, until it is.

        Raises:
            sqlite3.ProgrammingError: it is a fault of ours, which no second attempt mends.
        """
        while True:
            try:
                return note()
            except sqlite3.ProgrammingError:
                raise
            except (sqlite3.Error, OSError) as error:
                self._log("store failed, tries again", error=str(error))
                time.sleep(RETRY)


def _write(file: Path, content: bytes) -> None:
    """Put a result that came by message in its place."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with replacing(file) as path:
        path.write_bytes(content)
