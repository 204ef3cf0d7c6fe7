"""Queued jobs to free workers, and what became of them into the store: one thread that takes messages in turn.

Workers say what they do (`messages`), the HTTP side says that there is a job, or that one is to stop. A worker that
ends is started again, after a pause that grows while it keeps ending. What it held goes back to its old place in
the queue; a job that lost two workers is failed. One that has lost a worker is given to another only when that has
nothing else to do, so that no other job is counted with it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from queue import Empty, SimpleQueue
from threading import Event, Thread, Timer
from typing import Any

from kandinsky.serving.job import Job
from kandinsky.serving.live import Live, Now
from kandinsky.serving.messages import (
    Cancel,
    Done,
    Failed,
    Free,
    FromWorker,
    Gone,
    Make,
    Preview,
    Ready,
    Refused,
    Stage,
    Step,
    Stop,
    Stopped,
)
from kandinsky.serving.notes import Log, Notes
from kandinsky.serving.processes import Start, Worker
from kandinsky.serving.store import Store

PAUSES = (0.5, 30.0)
"""Seconds before a worker is started again: after its first end, and at most."""


@dataclass
class Hand:
    """What the scheduler knows of one worker.

    Args:
        jobs: that it was given and has not ended, by id.
        free: it can be given one more.
        ends, all_ends: how often it ended without having been ready since, and at all.
    """

    name: str
    worker: Worker | None = None
    ready: bool = False
    free: bool = False
    ends: int = 0
    all_ends: int = 0
    memory: int = 0
    why: str = "loading"
    jobs: dict[str, Job] = field(default_factory=dict)


class Scheduler:
    """Runs until it is stopped.

    Args:
        store: of the jobs.
        starts: how each worker is started, by its name.
        log: is told what happens.
        seconds: is told how long each stage of a finished job took.
    """

    def __init__(
        self,
        store: Store,
        starts: dict[str, Start],
        *,
        log: Log = lambda *_, **__: None,
        seconds: Callable[[str, float], object] = lambda *_: None,
    ):
        self.store = store
        self.live = Live(lambda job_id, wanted: self._post("preview", job_id, wanted))
        self.hands = {name: Hand(name) for name in starts}
        self.refused: Refused | None = None
        self.drained = Event()
        self._starts = dict(starts)
        self._log = log
        self._notes = Notes(store, log, seconds)
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._draining = False
        self._ever_ready = False
        self._thread = Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Take up what the last server left, and start the workers."""
        for job_id in self.store.recover():
            self._log("job requeued", job=job_id, reason="the server had ended")
        self._thread.start()

    def wake(self) -> None:
        """There is a new job."""
        self._post("wake")

    def cancel(self, job_id: str) -> None:
        """A job that runs is to be stopped; the store knows already."""
        self._post("cancel", job_id)

    def stop(self, job_id: str) -> None:
        """A job is to be ended, wherever it is; without waiting for the store."""
        self._post("stop", job_id)

    def add(self, name: str, start: Start) -> None:
        """One more worker."""
        self._post("add", name, start)

    def drain(self) -> None:
        """Begin no more jobs; `drained` is set when those that run are done, and the workers are gone then."""
        self._post("drain")

    @property
    def draining(self) -> bool:
        """Whether no more jobs are begun."""
        return self._draining

    @property
    def is_ready(self) -> bool:
        """Whether any worker has its weights."""
        return any(hand.ready for hand in self.hands.values())

    def kill(self) -> None:
        """End the workers at once; what they held is taken up by the next server."""
        self._draining = True
        for hand in list(self.hands.values()):
            if hand.worker is not None:
                hand.worker.kill()
        self.live.close()
        self.drained.set()
        self._post("end")

    def wait_until_gone(self, seconds: float) -> None:
        """After `drain`: until the workers have ended by themselves, at most for `seconds`."""
        end = time.monotonic() + seconds
        while any(hand.worker is not None for hand in self.hands.values()) and time.monotonic() < end:
            time.sleep(0.02)

    def _post(self, what: str, *values: Any) -> None:
        self._inbox.put((what, values))

    def _run(self) -> None:
        for name in list(self.hands):
            self._on_start(name)
        while True:
            what, values = self._next()
            if what == "end":
                return
            try:
                getattr(self, f"_on_{what}")(*values)
                self._assign()
            except Exception as error:  # noqa: BLE001  # what must be noted is tried for ever; the rest comes again
                self._log("scheduler failed", at=what, error=repr(error))
            self._look_whether_drained()

    def _next(self) -> tuple[str, tuple]:
        try:
            return self._inbox.get(timeout=5.0)
        except Empty:
            return "wake", ()

    def _on_start(self, name: str) -> None:
        if self._draining:
            return
        hand = self.hands[name]
        hand.why = "loading"
        self._log("worker starts", worker=name)
        try:
            hand.worker = self._starts[name](name, lambda worker, message: self._post("said", worker, message))
        except Exception as error:  # noqa: BLE001  # no memory for a process, say: the others go on
            self._on_gone(hand, Gone(f"not started, {error!r}"))

    def _assign(self) -> None:
        """Give queued jobs to free workers."""
        moved = False
        for hand in self.hands.values():
            while hand.ready and hand.free and not self._draining and not any(job.kills for job in hand.jobs.values()):
                idle = not hand.jobs
                job = self.store.claim(fits=lambda job, idle=idle: idle or not job.kills)
                if job is None:
                    break
                moved = True
                hand.free = False
                hand.jobs[job.id] = job
                self.live.set(job.id, Now())
                assert hand.worker is not None
                preview = self.live.is_watched(job.id)
                hand.worker.send(Make(job.id, job.asked, str(self.store.folder_of(job.id)), preview))
                self._log("job begins", job=job.id, worker=hand.name)
        if moved:
            self.live.call_all()

    def _on_wake(self) -> None:
        """Something may be there to be given out."""

    def _on_add(self, name: str, start: Start) -> None:
        self._starts[name] = start
        self.hands[name] = Hand(name)
        self._on_start(name)

    def _on_cancel(self, job_id: str) -> None:
        for hand in self.hands.values():
            if job_id in hand.jobs and hand.worker is not None:
                hand.jobs[job_id] = replace(hand.jobs[job_id], cancelled=True)
                hand.worker.send(Cancel(job_id))

    def _on_stop(self, job_id: str) -> None:
        self._notes.insist(lambda: self.store.cancel(job_id))
        self._on_cancel(job_id)
        self.live.call(job_id)

    def _on_preview(self, job_id: str, wanted: bool) -> None:
        for hand in self.hands.values():
            if job_id in hand.jobs and hand.worker is not None:
                hand.worker.send(Preview(job_id, wanted))

    def _on_drain(self) -> None:
        self._draining = True
        self._log("drains", jobs=[job_id for hand in self.hands.values() for job_id in hand.jobs])

    def _on_said(self, worker: Worker, message: FromWorker) -> None:
        hand = self.hands[worker.name]
        if hand.worker is not worker:
            return
        match message:
            case Ready():
                hand.ready = hand.free = True
                hand.ends, hand.memory, hand.why = 0, message.memory, "ready"
                self._ever_ready = True
                self._log("worker ready", worker=hand.name, pid=message.pid)
            case Refused():
                hand.why = message.reason
                self._log("worker cannot load", worker=hand.name, error=message.reason)
                if message.argument and not self._ever_ready:
                    self.refused = message
                    self.drained.set()
            case Stage():
                now = self.live.now(message.job_id) or Now()
                self.live.set(message.job_id, replace(now, stage=message.name))
            case Step():
                self._on_step(message)
            case Free():
                hand.free = True
            case Gone():
                self._on_gone(hand, message)
            case Done() | Stopped() | Failed():
                self._on_end(hand, message)

    def _on_step(self, message: Step) -> None:
        now = self.live.now(message.job_id) or Now()
        now = replace(now, stage="sample", step=message.step, total=message.total)
        if message.picture is not None:
            now = replace(now, picture=message.picture, pictured=message.step)
        self.live.set(message.job_id, now)

    def _on_end(self, hand: Hand, message: Done | Stopped | Failed) -> None:
        job = hand.jobs.get(message.job_id)
        if job is None:
            return
        match message:
            case Done():
                hand.memory = message.memory or hand.memory
                self._notes.completed(job, message)
            case Stopped():
                self._notes.ended(job, "cancelled")
            case Failed():
                self._notes.ended(job, "failed", code=message.code, reason=message.reason)
        del hand.jobs[job.id]
        self.live.end(job.id)

    def _on_gone(self, hand: Hand, message: Gone) -> None:
        self._log("worker gone", worker=hand.name, how=message.how, jobs=list(hand.jobs))
        for job in list(hand.jobs.values()):
            self._notes.lost(job, message, killed=not self._draining)
            self.live.end(job.id)
        hand.jobs.clear()
        hand.ready, hand.free, hand.worker = False, False, None
        hand.why = f"ended ({message.how})" if hand.why in ("ready", "loading") else hand.why
        hand.ends, hand.all_ends = hand.ends + 1, hand.all_ends + 1
        if not self._draining:
            pause = min(PAUSES[0] * 2 ** (hand.ends - 1), PAUSES[1])
            timer = Timer(pause, lambda: self._post("start", hand.name))
            timer.daemon = True
            timer.start()

    def _look_whether_drained(self) -> None:
        if self._draining and not any(hand.jobs for hand in self.hands.values()) and not self.drained.is_set():
            for hand in self.hands.values():
                if hand.worker is not None:
                    hand.worker.send(Stop()) if hand.ready else hand.worker.kill()
            self.live.close()
            self.drained.set()
