"""Workers on every node of a Ray cluster: Ray finds a place for each, and says when it is lost. The only file that
imports ray.

A worker is an actor with the GPUs that it needs. It starts the same processes as a worker on one machine, with the
same messages, and hands them on; so a crash of CUDA ends a process, not the actor's. Files come back with the messages:
nodes need no shared folder, only the weights at the same path. What a lost node had sampled is sampled again.
"""

import contextlib
import dataclasses
import errno
import logging
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from queue import SimpleQueue
from typing import Any

os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")  # read when ray is imported; see `_connection`
import ray as untyped_ray  # pyright: ignore[reportMissingImports]  # an extra
from ray.exceptions import RayError  # pyright: ignore[reportMissingImports]

from kandinsky.serving.messages import Done, Failed, Free, FromWorker, Gone, Make, Stopped, ToWorker
from kandinsky.serving.processes import LocalWorker, Report, Start, Worker
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.worker import Place

ray: Any = untyped_ray
LOOK = 5.0
"""Seconds between two looks for nodes that have joined."""
PATIENCE = 10.0
"""Seconds for a cluster to answer at all."""
NAMESPACE = "kandinsky"

# A call of ray's without a connection would open a new one, in the middle of another `ray.init` maybe. It is told not
# to, and threads that outlive `close` look under this lock first.
_connection = threading.Lock()


class Actor:
    """What runs on a node: a worker's processes, and what they say."""

    def __init__(self, name: str, place: Place):
        self._said: SimpleQueue[FromWorker] = SimpleQueue()
        self._folder = Path(tempfile.mkdtemp(prefix="kandinsky-"))
        self._files: dict[str, Path] = {}
        self._worker = LocalWorker(name, lambda _worker, message: self._said.put(message), place=place)

    def tell(self, message: ToWorker) -> None:
        """Hand a message to the worker; the job's folder is one of this node."""
        if isinstance(message, Make):
            folder = self._folder / message.job_id
            self._files[message.job_id] = folder / message.asked.file_name
            try:
                for name, content in message.files.items():
                    (folder / name).parent.mkdir(parents=True, exist_ok=True)
                    (folder / name).write_bytes(content)
            except OSError as error:  # this node's disk is full, say
                for said in _not_begun(message.job_id, error):
                    self._said.put(said)
                return
            message = dataclasses.replace(message, folder=str(folder), files={})
        self._worker.send(message)

    def listen(self) -> Iterator[FromWorker]:
        """All that the worker says, until it is gone."""
        while True:
            message = self._said.get()
            if isinstance(message, Done | Failed | Stopped):
                message = self._with_file(message)
            yield message
            if isinstance(message, Gone):
                shutil.rmtree(self._folder, ignore_errors=True)
                return

    def _with_file(self, message: Done | Failed | Stopped) -> FromWorker:
        file = self._files.pop(message.job_id, None)
        if file is None:
            return message
        try:
            if isinstance(message, Done):
                message = dataclasses.replace(message, content=file.read_bytes())
        except OSError as error:
            message = _failed(message.job_id, error)
        shutil.rmtree(file.parent, ignore_errors=True)
        return message


class RayWorker:
    """A worker of the cluster, seen from here."""

    def __init__(self, name: str, report: Report, *, place: Place):
        self.name = name
        self._report = report
        needs: dict[str, Any] = {"num_gpus": place.processes} if _needs_gpus(place) else {"num_cpus": place.processes}
        groups = {"listen": 1, "tell": 1}  # each a thread: messages keep their order
        remote: Any = ray.remote(concurrency_groups=groups, max_restarts=0, **needs)(Actor)
        self._actor = remote.remote(name, place)
        threading.Thread(target=self._listen, name=name, daemon=True).start()

    def send(self, message: ToWorker) -> None:
        """Tell it something; one that is lost says so by itself. The inputs of a job go with it."""
        if isinstance(message, Make) and message.folder:
            try:
                files = {name: (Path(message.folder) / name).read_bytes() for name in message.asked.inputs.values()}
            except OSError as error:
                for said in _not_begun(message.job_id, error):
                    self._report(self, said)
                return
            message = dataclasses.replace(message, files=files)
        with contextlib.suppress(RayError):
            self._actor.tell.options(concurrency_group="tell").remote(message)

    def kill(self) -> None:
        """End it at once; without a connection it has ended."""
        with contextlib.suppress(RayError), _connection:
            if ray.is_initialized():
                ray.kill(self._actor)

    def _listen(self) -> None:
        how = "its actor ended"
        try:
            stream = self._actor.listen.options(num_returns="streaming", concurrency_group="listen").remote()
            for reference in stream:
                message = _got(reference)
                if isinstance(message, Gone):
                    how = message.how
                    break
                self._report(self, message)
        except (Exception, SystemExit) as error:  # noqa: BLE001  # ray has many; each means that the actor is lost
            how = f"its node or actor is lost ({type(error).__name__})"
        self.kill()
        self._report(self, Gone(how))


class Cluster:
    """A connection to a Ray cluster.

    Args:
        address: as `ray.init` takes it: "auto", or HOST:PORT.
        place: what each worker loads.
        most: workers at most; None is as many as there is room for.

    Raises:
        ValueError: there is no such cluster.
    """

    def __init__(self, address: str, place: Place, *, most: int | None = None):
        self._place, self._most = place, most
        self._ended = threading.Event()
        try:
            with _connection:
                if not ray.is_initialized():
                    _check_answers(address)
                    ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
            ray.put(None)  # ray imports what it serialises with at the first value: not in two threads at once
        except (OSError, ValueError, RuntimeError) as error:
            raise ValueError(f"ray={address!r}: no such cluster: {error}") from error

    def room(self) -> int:
        """Workers that the cluster has GPUs (on the CPU: cores) for."""
        kind = "GPU" if _needs_gpus(self._place) else "CPU"
        nodes = [node["Resources"].get(kind, 0) for node in ray.nodes() if node["Alive"]]
        whole = sum(int(number // self._place.processes) for number in nodes)  # a group is on one node
        return whole if self._most is None else min(whole, self._most)

    def starts(self, first: int, last: int) -> dict[str, Start]:
        """How the workers from number `first` to before `last` are started."""
        return {f"ray-{number}": self._start for number in range(first, last)}

    def _start(self, name: str, report: Report) -> Worker:
        return RayWorker(name, report, place=self._place)

    def grow(self, add: Callable[[str, Start], object], have: int) -> None:
        """Add workers for nodes that join, on a thread; those of lost nodes are started again and wait for room."""

        def look() -> None:
            number = have
            while not self._ended.wait(LOOK):
                with contextlib.suppress(RayError, ConnectionError):
                    with _connection:
                        if self._ended.is_set():
                            return
                        room = self.room()
                    for name, start in self.starts(number, room).items():
                        add(name, start)
                    number = max(number, room)

        threading.Thread(target=look, name="nodes", daemon=True).start()

    def grow_scheduler(self, scheduler: Scheduler) -> None:
        """The same for a server."""
        self.grow(scheduler.add, len(scheduler.hands))

    def close(self) -> None:
        """Leave the cluster; its actors end."""
        self._ended.set()
        with _connection:
            ray.shutdown()


def _got(reference: Any) -> FromWorker:
    """What came from a worker; other threads may close the connection meanwhile, but not be waited for.

    Raises:
        ConnectionError: it is closed.
    """
    with _connection:
        if not ray.is_initialized():
            raise ConnectionError("the connection to the cluster is closed")
        future = reference.future()
    return future.result()


def _failed(job_id: str, error: OSError) -> Failed:
    code = "disk_full" if error.errno == errno.ENOSPC else "internal_error"
    return Failed(job_id, code, f"its files: {error}")


def _not_begun(job_id: str, error: OSError) -> tuple[Failed, Free]:
    """What is said of a job whose files do not get to its worker."""
    return _failed(job_id, error), Free()


def _needs_gpus(place: Place) -> bool:
    return place.device.startswith("cuda")


def _check_answers(address: str) -> None:
    """Look whether anybody listens at HOST:PORT: Ray itself would try for minutes.

    Raises:
        OSError: nobody does.
    """
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "/" not in host:
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
