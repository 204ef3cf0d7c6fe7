"""What tests of the server share: workers that run in the test's process, and a server on a thread."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import httpx
import uvicorn
from helpers import LONG, SMALL, until

from kandinsky.serving.http import make_app
from kandinsky.serving.job import Asked
from kandinsky.serving.log import Log
from kandinsky.serving.maker import BrokenError, Maker
from kandinsky.serving.messages import Cancel, Done, Free, Gone, Make, Preview, Ready, Stop, Stopped
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import Options
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.server import listen
from kandinsky.serving.store import Store

ASKED = Asked(text="a cat", seed=3, time_length=1, width=64, height=64, ending=".mp4")


class ThreadWorker:
    """A worker with a pipeline of the test's own process."""

    def __init__(self, pipe, name, report):
        self.name, self._report = name, report
        self._inbox = SimpleQueue()
        self._maker = Maker(pipe, lambda message: report(self, message))
        threading.Thread(target=self._work, daemon=True).start()

    def send(self, message):
        if isinstance(message, Cancel):
            self._maker.cancel(message.job_id)
        elif isinstance(message, Preview):
            self._maker.watch(message.job_id, message.wanted)
        else:
            self._inbox.put(message)

    def kill(self):
        self._inbox.put(Stop())

    def _work(self):
        self._report(self, Ready(0))
        while not isinstance(message := self._inbox.get(), Stop):
            with contextlib.suppress(BrokenError):
                self._maker.make(message)
        self._maker.close()
        self._report(self, Gone("told to stop"))


@dataclass
class HandWorker:
    """A worker that does what the test says; `got` are its orders."""

    name: str
    report: Callable[..., Any]
    got: list = field(default_factory=list)
    cancels: list = field(default_factory=list)
    ended: bool = False

    def send(self, message):
        if isinstance(message, Make):
            self.got.append(message)
        elif isinstance(message, Cancel):
            self.cancels.append(message.job_id)
            self.report(self, Stopped(message.job_id))
            self.report(self, Free())
        elif isinstance(message, Stop):
            self.die()

    def kill(self):
        self.die()

    def ready(self):
        self.report(self, Ready(0))

    def finish(self, place=-1, content=b"video"):
        """Say that a job is done."""
        self.report(self, Done(self.got[place].job_id, {"total": 0.1}, content=content))
        self.report(self, Free())

    def die(self):
        if not self.ended:
            self.ended = True
            self.report(self, Gone("exit code -9"))


@dataclass
class Hands:
    """A scheduler whose workers do what the test says; `workers` are all that were started."""

    store: Store
    workers: list[HandWorker] = field(default_factory=list)
    lines: list = field(default_factory=list)
    scheduler: Any = None

    def start(self, names=("w",), **options):
        def begin(name, report):
            self.workers.append(HandWorker(name, report))
            return self.workers[-1]

        def log(event, **facts):
            self.lines.append((event, facts))

        self.scheduler = Scheduler(self.store, dict.fromkeys(names, begin), log=log, **options)
        self.scheduler.start()
        until(lambda: len(self.workers) == len(names))
        return self


class QuickServer(uvicorn.Server):
    """uvicorn's looks ten times a second whether it is to end: this one at once."""

    async def main_loop(self) -> None:
        ticks = 0
        while not await self.on_tick(ticks):
            ticks += 1
            await asyncio.sleep(0.01)


def client_of(address: str) -> httpx.Client:
    """A client of a server of ours; without certificates, which are read from a file for each client otherwise."""
    return httpx.Client(base_url=address, timeout=LONG, verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))


@contextlib.contextmanager
def served(
    scheduler: Scheduler,
    options: Options = Options(model_set=SMALL),  # noqa: B008
    log: Log | None = None,
    *,
    port: int = 0,
) -> Iterator[str]:
    """The address of a server on a thread; the scheduler is the caller's."""
    metrics = Metrics()
    metrics.watch(scheduler)
    app = make_app(scheduler, options, metrics=metrics, log=log or (lambda *_, **__: None))
    server = QuickServer(uvicorn.Config(app, log_level="warning", lifespan="off", timeout_graceful_shutdown=1))
    with listen("127.0.0.1", port) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        until(lambda: server.started)
        try:
            yield address
        finally:
            server.should_exit = True
            thread.join(LONG)


def posted(client: httpx.Client, **body: Any) -> dict[str, Any]:
    """A new job."""
    answer = client.post("/v1/videos", json={"prompt": "a cat", "seconds": 1, "size": "64x64", **body})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(client: httpx.Client, job_id: str) -> dict[str, Any]:
    """A job when it has ended."""

    def found():
        video = client.get(f"/v1/videos/{job_id}").json()
        return video if video["status"] in ("completed", "failed") else None

    return until(found)


def names_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
