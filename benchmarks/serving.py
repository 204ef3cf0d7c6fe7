"""A server under load, its workers replaced by ones that take 50 ms; and what workers of a cluster wait for.

    python benchmarks/serving.py [--clients 200] [--seconds 60] [--jobs 10000] [--workers 16]
    python benchmarks/serving.py --simulate [--jobs 100000] [--workers 100] [--job-seconds 4.6] [--message-ms 3]
    python benchmarks/serving.py --size tiny --device cpu    # to try the benchmark itself

Load: each client posts a job, waits until it is completed, and posts the next one, until `--jobs` are posted in all or
`--seconds` are over; then the store is asked whether every job that was answered is there and completed once. The
server is a process of its own with its store on disk; the clients are coroutines of this one, so that both share the
machine. The limit: `--workers` / 0.05 s jobs a second. The last line is JSON.

Simulation: one dispatcher that needs `--message-ms` for each job, workers that hold `--ahead` jobs besides the one that
they make, durations that vary by a tenth. It gives the share of the time, from the first job's begin to the last one's
end, in which workers wait. Nothing is measured in it but the arithmetic of a queue.
"""

import argparse
import asyncio
import heapq
import json
import math
import multiprocessing
import random
import resource
import socket
import sqlite3
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from types import MappingProxyType

from kandinsky.serving.http import make_app
from kandinsky.serving.log import Log
from kandinsky.serving.messages import Done, Free, Gone, Make, Ready, Stop
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import Options
from kandinsky.serving.processes import Report
from kandinsky.serving.retention import Limits
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.server import listen, serve
from kandinsky.serving.store import Store

SIZES: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "full": {"clients": 200, "seconds": 60, "jobs": 10_000, "workers": 16},
        "tiny": {"clients": 10, "seconds": 60, "jobs": 20, "workers": 4},
    }
)
SIMULATED: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {"full": {"jobs": 100_000, "workers": 100}, "tiny": {"jobs": 2000, "workers": 10}}
)
TAKES = 0.05
POLL = 1.0
BODY = json.dumps({"prompt": "A lighthouse in a storm, waves as high as houses, gulls", "seconds": 5}).encode()


class QuickWorker:
    """A worker that takes 50 ms for a job."""

    def __init__(self, name: str, report: Report):
        self.name = name
        self._inbox: SimpleQueue = SimpleQueue()
        threading.Thread(target=self._work, args=(report,), daemon=True).start()

    def send(self, message: object) -> None:
        self._inbox.put(message)

    def kill(self) -> None:
        self._inbox.put(Stop())

    def _work(self, report: Report) -> None:
        report(self, Ready(0))
        while not isinstance(message := self._inbox.get(), Stop):
            if isinstance(message, Make):
                time.sleep(TAKES)
                report(self, Free())
                report(self, Done(message.job_id, {"total": TAKES}))
        report(self, Gone("told to stop"))


def run_server(listener: socket.socket, data: str, workers: int) -> None:
    log, metrics = Log((Path(data) / "log.jsonl").open("w")), Metrics()
    with Store(Path(data) / "data") as store:
        scheduler = Scheduler(store, {f"w{i}": QuickWorker for i in range(workers)}, log=log, seconds=metrics.seconds)
        app = make_app(scheduler, Options(max_queue=10**6, max_jobs_of_key=10**6), metrics=metrics, log=log)
        serve(app, scheduler, listener, limits=Limits(), log=log)


@dataclass
class Load:
    """What the clients have seen; `end` is in seconds from their begin, and then on the clock."""

    port: int
    most: int
    end: float
    answered: list[str] = field(default_factory=list)
    completed: int = 0
    posts: list[float] = field(default_factory=list)
    gets: list[float] = field(default_factory=list)
    begun: int = 0

    async def client(self, delay: float) -> None:
        """One client: post, wait, post."""
        await asyncio.sleep(delay)
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while self.begun < self.most and time.monotonic() < self.end:
            self.begun += 1
            start = time.perf_counter()
            video = await ask(reader, writer, "POST", "/v1/videos", BODY)
            self.posts.append(time.perf_counter() - start)
            self.answered.append(video["id"])
            while video["status"] != "completed":
                await asyncio.sleep(POLL)
                start = time.perf_counter()
                video = await ask(reader, writer, "GET", f"/v1/videos/{video['id']}")
                self.gets.append(time.perf_counter() - start)
            self.completed += 1
        writer.close()


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, method: str, path: str, body: bytes = b""
) -> dict:
    """One request on a connection that stays open."""
    kind = "Content-Type: application/json\r\n" if body else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {len(body)}\r\n\r\n".encode())
    writer.write(body)
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length:")[2].partition("\r\n")[0])
    found = json.loads(await reader.readexactly(length))
    if " 200 " not in head[:16]:
        raise RuntimeError(f"{method} {path}: {found}")
    return found


def memory_of(pid: int) -> float:
    """MiB that a process has in memory."""
    text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(text.partition("VmRSS:")[2].split()[0]) / 1024


async def drive(load: Load, clients: int, pid: int) -> tuple[list[float], float]:
    """MiB of the server each second, and seconds that all took."""
    memory: list[float] = []

    async def watch() -> None:
        while True:
            memory.append(memory_of(pid))
            await asyncio.sleep(1.0)

    reader, writer = await asyncio.open_connection("127.0.0.1", load.port)
    await ask(reader, writer, "GET", "/health")  # it has started
    writer.close()
    load.end += time.monotonic()
    watching = asyncio.create_task(watch())
    start = time.perf_counter()
    await asyncio.gather(*(load.client(POLL * index / clients) for index in range(clients)))
    watching.cancel()
    return memory, time.perf_counter() - start


def quantile(values: list[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def load_test(arguments: argparse.Namespace) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as data, listen("127.0.0.1", 0) as listener:
        context = multiprocessing.get_context("spawn")  # without what is imported here
        server = context.Process(target=run_server, args=(listener, data, arguments.workers))
        server.start()
        assert server.pid is not None
        port = listener.getsockname()[1]
        load = Load(port, arguments.jobs, arguments.seconds)
        memory, seconds = asyncio.run(drive(load, arguments.clients, server.pid))
        server.terminate()
        server.join(30)
        database = sqlite3.connect(Path(data) / "data" / "jobs.db")
        rows = dict(database.execute("SELECT id, status FROM jobs"))
        database.close()
        lines = [json.loads(line) for line in (Path(data) / "log.jsonl").read_text().splitlines()]
        done = [line["job"] for line in lines if line["event"] == "job completed"]
        size = sum(path.stat().st_size for path in (Path(data) / "data").glob("jobs.db*"))
    half = len(memory) // 2
    cpu = {"server": resource.getrusage(resource.RUSAGE_CHILDREN), "clients": resource.getrusage(resource.RUSAGE_SELF)}
    return {
        "clients": arguments.clients,
        "seconds": round(seconds, 1),
        "jobs": len(rows),
        "lost": len(set(load.answered) - set(rows)) + sum(status != "completed" for status in rows.values()),
        "doubled": len(done) - len(set(done)),
        "exit_code": server.exitcode,
        "post_ms": {name: round(1000 * quantile(load.posts, q), 1) for name, q in (("p50", 0.5), ("p99", 0.99))},
        "get_ms": {name: round(1000 * quantile(load.gets, q), 1) for name, q in (("p50", 0.5), ("p99", 0.99))},
        "cpu_ms_a_job": {
            name: round(1000 * (used.ru_utime + used.ru_stime) / max(len(rows), 1), 2) for name, used in cpu.items()
        },
        "database_bytes_a_job": round(size / max(len(rows), 1)),
        "memory_mib": {"begin": round(memory[0]), "half": round(memory[half]), "end": round(memory[-1])},
    }


def simulate(arguments: argparse.Namespace) -> dict[str, object]:
    """Share of the time in which workers wait."""
    message, draw = arguments.message_ms / 1000, random.Random(0)
    free_at = [0.0] * arguments.workers  # when each has made all that it holds
    asks = [(0.0, index) for index in range(arguments.workers)] * (1 + arguments.ahead)
    heapq.heapify(asks)
    ready, worked = 0.0, 0.0
    for _ in range(arguments.jobs):
        at, index = heapq.heappop(asks)
        ready = max(ready, at) + message  # the dispatcher takes one message after the other
        takes = arguments.job_seconds * draw.uniform(0.9, 1.1)
        free_at[index] = max(free_at[index], ready) + takes
        worked += takes
        heapq.heappush(asks, (free_at[index], index))
    end = max(free_at)
    share = 1 - worked / (end * arguments.workers)
    return {"workers": arguments.workers, "jobs": arguments.jobs, "message_ms": arguments.message_ms,
            "ahead": arguments.ahead, "hours": round(end / 3600, 3), "waiting_share": round(share, 5)}  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    from script import device_in, finish, machine, parser_of  # with torch, which the server's process does without

    parser = parser_of(__doc__, devices=("cpu",))
    parser.add_argument("--clients", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--simulate", action="store_true")
    parser.add_argument("--job-seconds", type=float, default=4.6)
    parser.add_argument("--message-ms", type=float, default=3.0)
    parser.add_argument("--ahead", type=int, default=1)
    given = parser.parse_args(arguments)
    for name, value in (SIMULATED if given.simulate else SIZES)[given.size].items():
        if getattr(given, name) is None:
            setattr(given, name, value)
    figures = (simulate if given.simulate else load_test)(given)
    finish({**machine(device_in(given)), "size": given.size, **figures}, given)


if __name__ == "__main__":
    main()
