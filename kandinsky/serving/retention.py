"""Which finished jobs are deleted: those older than they are kept, then the oldest until the disk's share is kept.

A job that was completed, but not downloaded, stays for its first hour whatever the limits say. A clock that was set
back makes ages smaller, never larger than they are: nothing is deleted too early.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from kandinsky.serving.job import Job
from kandinsky.serving.store import Store

DAY = 86400.0
GRACE = 3600.0
"""Seconds in which a video that nobody has downloaded is not deleted."""


@dataclass(frozen=True)
class Limits:
    """How long, and how much: None is without end."""

    keep_days: float | None = None
    disk_bytes: int | None = None


def too_much(jobs: Iterable[Job], limits: Limits, *, now: float) -> list[Job]:
    """Those of the ended `jobs`, oldest first, that are to be deleted."""
    left = list(jobs)
    goes = []
    total = sum(job.size for job in left)
    for job in left:
        age = now - (job.created if job.finished is None else job.finished)
        protected = job.status == "completed" and not job.downloaded and age < GRACE
        old = limits.keep_days is not None and age > limits.keep_days * DAY
        large = limits.disk_bytes is not None and total > limits.disk_bytes and job.size > 0
        if (old or large) and not protected:
            goes.append(job)
            total -= job.size
    return goes


def tidy(store: Store, limits: Limits) -> list[str]:
    """Delete what is too much; the ids."""
    goes = too_much(store.ended(), limits, now=store.clock())
    for job in goes:
        store.delete(job.id)
    return [job.id for job in goes]
