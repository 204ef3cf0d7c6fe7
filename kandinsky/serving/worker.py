"""A worker process: loads the weights, then makes jobs until it is told to stop or its server is gone.

One process for a GPU, or of a group that makes each video together the rank 0; the other ranks follow it. A thread
reads what the server says, so that a cancel is heard while a step runs; when the pipe ends the server is gone, and the
process ends at once: the next server starts the job again. Signals of a terminal or a service manager are for the
server, which says when to stop.
"""

import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Lock, Thread
from typing import TYPE_CHECKING

from kandinsky.serving.messages import Cancel, FromWorker, Make, Preview, Ready, Refused, Stop, ToWorker

if TYPE_CHECKING:
    from kandinsky.pipeline import Kandinsky4T2VPipeline


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a worker loads, and where.

    Args:
        weights, device, precision, memory, parallelism, attention, kernels: as `get_T2V_pipeline` takes them.
        processes: that make each video together.
        loras: weight of each file of low-rank weights, as `get_T2V_pipeline` takes them.
        variables: of the environment, e.g. which GPUs it sees.
    """

    weights: str
    device: str
    precision: str = "exact"
    memory: str = "auto"
    parallelism: str = "sequence"
    attention: str = "auto"
    kernels: str = "auto"
    processes: int = 1
    loras: Mapping[str, float] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


def load(place: Place) -> "Kandinsky4T2VPipeline":
    """The pipeline of a worker."""
    from kandinsky.factory import get_T2V_pipeline

    return get_T2V_pipeline(
        place.device,
        cache_dir=place.weights,
        precision=place.precision,
        memory=place.memory,
        parallelism=place.parallelism,
        attention=place.attention,
        kernels=place.kernels,
        distributed=place.processes > 1,
        loras={**place.loras} or None,
        progress=False,
    )


def main(connection: Connection, place: Place, rank: int) -> None:
    """What the process runs; `connection` is to the server, to which ranks other than 0 say only that they fail."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.environ.update(place.variables)
    if place.processes > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    inbox: SimpleQueue[ToWorker] = SimpleQueue()
    process = _Process(connection, inbox)
    Thread(target=process.read, name="from the server", daemon=True).start()
    try:
        pipe = load(place)
    except Exception as error:  # noqa: BLE001  # the server says it to the user
        from kandinsky.parallel.watchdog import is_loss

        if place.processes == 1 or not is_loss(error):  # who is lost says why, or was killed
            process.say(Refused(f"{type(error).__name__}: {error}", isinstance(error, ValueError | FileNotFoundError)))
        os._exit(1)
    if rank > 0:
        from kandinsky.serving.group import follow  # with torch, which the server's own process does without

        follow(pipe, process.say)
    process.work(pipe)


class _Process:
    """The two ends of the pipe."""

    def __init__(self, connection: Connection, inbox: "SimpleQueue[ToWorker]"):
        self._connection = connection
        self._inbox = inbox
        self._lock = Lock()
        self._maker = None

    def say(self, message: FromWorker) -> None:
        """Send; without a server there is nothing left to do."""
        try:
            with self._lock:
                self._connection.send(message)
        except OSError:
            os._exit(1)

    def read(self) -> None:
        """Take what the server says: at once what concerns a job that runs, and in order all else."""
        while True:
            try:
                message = self._connection.recv()
            except (EOFError, OSError):
                os._exit(1)
            if isinstance(message, Make | Stop) or self._maker is None:
                self._inbox.put(message)
            else:
                self._note(message)

    def _note(self, message: ToWorker) -> None:
        assert self._maker is not None
        if isinstance(message, Cancel):
            self._maker.cancel(message.job_id)
        elif isinstance(message, Preview):
            self._maker.watch(message.job_id, message.wanted)

    def work(self, pipe: "Kandinsky4T2VPipeline") -> None:
        """Make jobs until told to stop."""
        from kandinsky.serving.maker import BrokenError, Maker, memory_in_use

        self._maker = Maker(pipe, self.say)
        self.say(Ready(os.getpid(), memory_in_use()))
        code = 0
        while not isinstance(message := self._inbox.get(), Stop):
            try:
                if isinstance(message, Make):
                    self._maker.make(message)
                else:
                    self._note(message)
            except BrokenError:
                code = 1
                break
        self._maker.close()
        if code or pipe.team.size > 1:
            os._exit(code)  # not by the interpreter's own end, in which other ranks would be waited for
