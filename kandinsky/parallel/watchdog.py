"""Nobody waits for a rank that is gone: a thread in each process that notices failures of the others.

Every process writes a sign of life into the process group's store twice a second. One that fails writes its error; one
that is killed falls silent. The others then end with that error, whatever collective they are waiting in, and whatever
launcher (or none) stands behind them.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

import torch.distributed as dist

INTERVAL = 0.5
SILENCE = 12.0
"""Seconds between signs of life, and after which a rank is given up."""
ENDING = 0.01
"""Seconds between signs of life of a rank that is done: a command ends when all are."""
DONE, LEFT = "done", "left"
"""Last signs of life: of a rank that is ready to end, and of one that looks for no others any more."""


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another rank cannot be reached, not what went wrong there."""
    return "onnection" in str(error) or isinstance(error, dist.DistError)


def end_process(failure: str) -> None:
    """Say why, and end: the main thread may wait for ever in a collective, where no exception reaches it."""
    print(f"error: {failure}", file=sys.stderr, flush=True)
    os._exit(1)


class Watchdog:
    """Watches the other ranks of a group of `size`, as `rank`. Use `start`.

    Args:
        store: that all ranks see.
        interval, silence: seconds between signs of life, and after which a rank is given up.
        end: called with the failure of another rank, when what is to be rescued is.
    """

    active: "Watchdog | None" = None

    def __init__(
        self,
        store: "dist.Store",
        rank: int,
        size: int,
        *,
        interval: float = INTERVAL,
        silence: float = SILENCE,
        end: Callable[[str], object] = end_process,
    ):
        self.store = store
        self.interval, self.silence, self.end = interval, silence, end
        self.rank = rank
        self.others = [other for other in range(size) if other != rank]
        self.rescues: list[Callable[[], object]] = []
        self.failed = False
        self._done = threading.Event()
        self._stop = threading.Event()
        self._hurry = threading.Event()
        # The last sign of life, and seconds without another.
        self._seen: dict[int, tuple[str, float]] = dict.fromkeys(self.others, ("", 0.0))
        self._looked = time.monotonic()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    @classmethod
    def start(cls, rank: int, size: int) -> "Watchdog":
        """Begin to watch the default process group, and to report this process's unhandled exceptions."""
        # A connection of its own: a wait of the group's in the store would hold up ours.
        store = dist.distributed_c10d._get_default_store()
        watchdog = cls(store.clone(), rank, size)  # pyright: ignore[reportAttributeAccessIssue]
        cls.active = watchdog
        watchdog.begin()
        previous = sys.excepthook

        def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
            previous(kind, error, trace)
            watchdog.report(error)

        sys.excepthook = report
        return watchdog

    def begin(self) -> None:
        """Give signs of life from now on, and look for those of the others."""
        self._thread.start()

    def report(self, error: BaseException) -> None:
        """Tell the others that this process fails. If it fails because another did, end with that one's error."""
        if is_loss(error):
            self._thread.join(self.silence + 5)  # ends the process as soon as it knows who
        self._stop.set()
        self._hurry.set()
        self.failed = True
        self.store.compare_set("failure", "", f"rank {self.rank} failed: {type(error).__name__}: {error}")
        time.sleep(3 * self.interval)  # the store may end with this process: let the others read it

    def finish(self) -> bool:
        """Wait until every rank is done; False if this one failed."""
        if self.failed:
            return False
        self._done.set()
        self._hurry.set()
        self._thread.join()  # it ends when all are done, and ends the process when one fails
        return True

    def _watch(self) -> None:
        beats = 0
        while not self._pause():
            done = self._done.is_set()
            try:
                self.store.set(_key(self.rank), DONE if done else str(beats))
                failure = self._look()
            except RuntimeError as error:  # of the store, which may end with the first rank
                if done:
                    return
                failure = f"the connection to the first rank is lost ({error})"
            if failure is not None:
                self._give_up(failure)
                return
            if done and all(beat in (DONE, LEFT) for beat, _ in self._seen.values()):
                self._leave()
                return
            beats += 1

    def _pause(self) -> bool:
        """Until the next sign of life; whether it was the last one."""
        self._hurry.wait(min(ENDING, self.interval) if self._done.is_set() else self.interval)
        self._hurry.clear()
        return self._stop.is_set()

    def _leave(self) -> None:
        """The first rank, whose process may hold the store, leaves last: nobody is to look for it in vain."""
        given_up = time.monotonic() + self.silence
        with suppress(RuntimeError):  # of a store that is gone all the same
            if self.rank > 0:
                self.store.set(_key(self.rank), LEFT)
                return
            while any(beat != LEFT for beat, _ in self._seen.values()) and time.monotonic() < given_up:
                time.sleep(min(ENDING, self.interval))
                self._look()

    def _look(self) -> str | None:
        """Read the others' signs of life; the failure, if there is one."""
        if self.store.check(["failure"]):
            return self.store.get("failure").decode()
        now = time.monotonic()
        # Whoever did not look for long was stopped, and the others maybe with it: by Ctrl-Z, or with their machine.
        passed, self._looked = min(now - self._looked, self.silence / 2), now
        for other in self.others:
            beat = self.store.get(_key(other)).decode() if self.store.check([_key(other)]) else ""
            silent = self._seen[other][1] + passed if beat == self._seen[other][0] else 0.0
            self._seen[other] = (beat, silent)
            if beat not in (DONE, LEFT) and silent > self.silence:
                return f"rank {other} stopped answering: it was killed, ran out of memory, or its machine is gone"
        return None

    def _give_up(self, failure: str) -> None:
        """Rescue what is to be rescued, and end."""
        try:
            for rescue in reversed(self.rescues):
                rescue()
        finally:  # whatever a rescue does, nobody may be left waiting
            self.end(failure)


def _key(rank: int) -> str:
    return f"beat {rank}"


def report_failure(error: BaseException) -> None:
    """Tell the other ranks, if there are any that are watched."""
    if Watchdog.active is not None:
        Watchdog.active.report(error)


@contextmanager
def rescue(save: Callable[[], object]) -> Iterator[None]:
    """Meanwhile, call `save` before this process is ended because another rank failed."""
    watchdog = Watchdog.active
    if watchdog is None:
        yield
        return
    watchdog.rescues.append(save)
    try:
        yield
    finally:
        watchdog.rescues.remove(save)
