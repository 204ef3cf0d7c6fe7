"""Workers on this machine, seen from the server: a process for each GPU, or a group of processes for several.

A thread for each worker hands on what it says, and says `Gone` when any of its processes has ended; the others of its
group are ended then.
"""

import multiprocessing
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from threading import Lock, Thread
from typing import Protocol

from kandinsky.serving import worker
from kandinsky.serving.messages import FromWorker, Gone, ToWorker
from kandinsky.serving.worker import Place

END = 10.0
"""Seconds for a process to end by itself after its last word."""


class Worker(Protocol):
    """What the scheduler knows of a worker."""

    @property
    def name(self) -> str: ...
    def send(self, message: ToWorker) -> None: ...
    def kill(self) -> None: ...


Report = Callable[[Worker, FromWorker], object]
"""Takes what a worker says, from any thread."""
Start = Callable[[str, Report], Worker]
"""Starts the worker of this name; it says `Ready` or `Refused`, and at its end `Gone`."""


class LocalWorker:
    """The processes of one worker.

    Args:
        name: in logs.
        place: what it loads, and where.
        report: is given what it says.
        context: how processes are started.
        target: what they run, by default `worker.main`.
    """

    def __init__(
        self,
        name: str,
        report: Report,
        *,
        place: Place,
        context: BaseContext | None = None,
        target: Callable[[Connection, Place, int], None] = worker.main,
    ):
        self.name = name
        self._report = report
        self._lock = Lock()
        context = context or multiprocessing.get_context("spawn")
        if place.processes > 1:
            place = _joined(place)
        self._connections: list[Connection] = []
        self._processes = []
        for rank in range(place.processes):
            ours, theirs = context.Pipe()
            process = context.Process(  # pyright: ignore[reportAttributeAccessIssue]  # each context has it
                target=target, args=(theirs, place, rank), name=f"{name}-{rank}", daemon=True
            )
            process.start()
            theirs.close()
            self._connections.append(ours)
            self._processes.append(process)
        Thread(target=self._listen, name=name, daemon=True).start()

    def send(self, message: ToWorker) -> None:
        """Tell it something; one that is gone says so by itself."""
        with suppress(OSError), self._lock:
            self._connections[0].send(message)

    def kill(self) -> None:
        """End it at once."""
        for process in self._processes:
            process.kill()

    @property
    def pids(self) -> list[int]:
        """Of its processes."""
        return [process.pid for process in self._processes]

    def _listen(self) -> None:
        talking, ends = list(self._connections), [process.sentinel for process in self._processes]
        spoke = True
        while spoke:  # what a process said last is heard before its end is
            happened = wait([*talking, *ends])
            for connection in [one for one in talking if one in happened]:
                try:
                    self._report(self, connection.recv())
                except (EOFError, OSError):
                    talking.remove(connection)
            spoke = any(connection in happened for connection in talking)
        self._processes[0].join(END)
        self.kill()
        for process in self._processes:
            process.join()
        for ours in self._connections:
            ours.close()
        codes = ", ".join(str(process.exitcode) for process in self._processes)
        self._report(self, Gone(f"exit code {codes}"))


def _joined(place: Place) -> Place:
    """With the variables by which its processes find each other."""
    size = str(place.processes)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    found = {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // place.processes, 1))}
    return Place(**{**vars(place), "variables": {**threads, **place.variables, **found}})


def places(place: Place, workers: int) -> list[Place]:
    """A place for each worker: of several on GPUs each sees its own ones.

    Raises:
        ValueError: the device is one GPU by its number, and several are needed.
    """
    needed = workers * place.processes
    if not place.device.startswith("cuda") or needed == 1:
        return [place] * workers
    if place.device != "cuda":
        raise ValueError(f"device={place.device!r} with {needed} GPUs: allowed are 'cuda' and 'cpu'")
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = [str(number) for number in range(needed)] if given is None else given.split(",")
    if len(names) < needed:
        raise ValueError(f"workers={workers} of {place.processes} GPUs: CUDA_VISIBLE_DEVICES names {len(names)}")
    found = []
    for index in range(workers):
        mine = names[index * place.processes : (index + 1) * place.processes]
        variables = {**place.variables, "CUDA_VISIBLE_DEVICES": ",".join(mine)}
        found.append(Place(**{**vars(place), "variables": variables}))
    return found
