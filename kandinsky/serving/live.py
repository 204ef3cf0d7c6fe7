"""What happens to jobs just now, for those who look: the stage, the step, the last picture. Nothing of it is kept.

The scheduler's thread publishes; followers wait in the server's event loop. A follower that is slow misses pictures and
steps in between, never the end.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from threading import RLock

STAGES = {"queued": 0, "text": 1, "sample": 5, "decode": 85, "write": 97}
"""Per cent that a job has at the beginning of a stage."""


@dataclass(frozen=True)
class Now:
    """Where a job is: a stage of `STAGES`, steps done, the last picture as a JPEG and its step."""

    stage: str = "text"
    step: int = 0
    total: int = 0
    picture: bytes | None = None
    pictured: int = 0

    @property
    def percent(self) -> int:
        """Approximately done."""
        first, after = STAGES["sample"], STAGES["decode"]
        if self.stage == "sample" and self.total:
            return first + (after - first) * self.step // self.total
        return STAGES[self.stage]


class Follower:
    """A wake-up call for one that waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop):
        self._loop = loop
        self._called = asyncio.Event()

    def call(self) -> None:
        """Wake it, from any thread."""
        try:
            self._loop.call_soon_threadsafe(self._called.set)
        except RuntimeError:  # the server's loop has ended
            return

    async def wait(self, seconds: float) -> bool:
        """Until it is called, at most for `seconds`; whether it was."""
        try:
            await asyncio.wait_for(self._called.wait(), seconds)
        except TimeoutError:
            return False
        self._called.clear()
        return True


class Live:
    """The present state of all jobs that run, and who follows which.

    Args:
        on_watch: told when a job is looked at by the first follower that wants pictures, and when by none any more.
    """

    def __init__(self, on_watch: Callable[[str, bool], object]):
        self._on_watch = on_watch
        self._lock = RLock()  # `close` may come in a signal handler, on the thread that holds it
        self._now: dict[str, Now] = {}
        self._followers: dict[str, list[Follower]] = {}
        self._watching: dict[str, int] = {}
        self.closed = False

    def now(self, job_id: str) -> Now | None:
        """Where a job is; None if it does not run."""
        return self._now.get(job_id)

    def set(self, job_id: str, now: Now) -> None:
        """A job has got on."""
        with self._lock:
            self._now[job_id] = now
        self.call(job_id)

    def end(self, job_id: str) -> None:
        """A job does not run any more."""
        with self._lock:
            self._now.pop(job_id, None)
        self.call(job_id)

    def call(self, job_id: str) -> None:
        """Wake who follows a job."""
        with self._lock:
            followers = list(self._followers.get(job_id, ()))
        for follower in followers:
            follower.call()

    def call_all(self) -> None:
        """Wake everybody: places in the queue have changed."""
        with self._lock:
            followers = [follower for some in self._followers.values() for follower in some]
        for follower in followers:
            follower.call()

    def close(self) -> None:
        """Wake everybody for the last time."""
        self.closed = True
        self.call_all()

    def is_watched(self, job_id: str) -> bool:
        """Whether anybody wants pictures of it."""
        return job_id in self._watching

    @asynccontextmanager
    async def follow(self, job_id: str, *, pictures: bool = False) -> AsyncIterator[Follower]:
        """A follower of a job while the body runs."""
        follower = Follower(asyncio.get_running_loop())
        with self._lock:
            self._followers.setdefault(job_id, []).append(follower)
        if pictures:
            self._watch(job_id, 1)
        try:
            yield follower
        finally:
            if pictures:
                self._watch(job_id, -1)
            with self._lock:
                self._followers[job_id].remove(follower)
                if not self._followers[job_id]:
                    del self._followers[job_id]

    def _watch(self, job_id: str, change: int) -> None:
        with self._lock:
            before = self._watching.pop(job_id, 0)
            if before + change:
                self._watching[job_id] = before + change
        if not before or not before + change:
            self._on_watch(job_id, change > 0)
