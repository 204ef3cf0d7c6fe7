"""Pictures and videos of clients, looked at before their job is taken: by a process of its own.

That process has PyTorch, which the server's has not, and what decodes a stranger's file can only bring it down, not the
server. It is started when it is first needed, and again if it ended or took too long.
"""

import multiprocessing
import signal
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from kandinsky.config import ModelSet
from kandinsky.serving.job import Asked

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess

SECONDS = 60.0
"""To look at the inputs of a job, and to start the process."""


@dataclass(frozen=True)
class Look:
    """What is to be looked at.

    Args:
        asked: a job with inputs.
        folder: where they are.
        sized, timed: the client named a size and a length; else they are chosen.
    """

    asked: Asked
    folder: Path
    sized: bool
    timed: bool


def looked_at(look: Look, model_set: ModelSet) -> Asked:
    """The job with the size and the length that it will have.

    Raises:
        ValueError: an input, or an argument, is not what it may be.
    """
    asked = look.asked
    if asked.overlap is None:
        shape = asked.request(look.folder, model_set=model_set, sized=look.sized, timed=look.timed).shape
        return replace(asked, width=shape.width, height=shape.height, time_length=shape.seconds)
    from kandinsky.extend.plan import extension_of
    from kandinsky.output.options import OutputOptions

    given = asked.extension(look.folder, sized=look.sized)
    options = OutputOptions(type="file", **{name: given.pop(name) for name in ("fps", "crf", "codec", "metadata")})
    source = extension_of(**given, model_set=model_set, options=options).source
    whole = asked.time_length + (source.count - 1) // source.fps
    return replace(asked, width=source.width, height=source.height, stitched=whole)


class Checker:
    """Looks at the inputs of one job after the other; any thread may ask.

    Args:
        model_set: of the weights.
        seconds: after which a look is given up.
    """

    def __init__(self, model_set: ModelSet, *, seconds: float = SECONDS):
        self._model_set = model_set
        self._seconds = seconds
        self._lock = Lock()
        self._process: SpawnProcess | None = None
        self._connection: Connection | None = None

    def check(self, look: Look) -> Asked:
        """What `looked_at` says.

        Raises:
            ValueError: as there; or it took too long, or what reads the inputs came to its end.
        """
        with self._lock:
            if self._process is None or not self._process.is_alive():
                self._start()
            assert self._connection is not None
            try:
                self._connection.send(look)
                if not self._connection.poll(self._seconds):
                    raise ValueError(f"the inputs took more than {self._seconds:.0f} s to read")
                found = self._connection.recv()
            except (EOFError, OSError):
                raise ValueError("the inputs cannot be read: what reads them came to its end") from None
            except ValueError:
                self.close()
                raise
        if isinstance(found, Asked):
            return found
        raise ValueError(found)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=main, args=(theirs, self._model_set), name="checker", daemon=True)
        self._process.start()
        theirs.close()


def main(connection: Connection, model_set: ModelSet) -> None:
    """What the process runs, until the server is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: it is for the server
    while True:
        try:
            look = connection.recv()
        except (EOFError, OSError):
            return
        try:
            answer: Asked | str = looked_at(look, model_set)
        except Exception as error:  # noqa: BLE001  # whatever a stranger's file brings about, the next one is looked at
            answer = str(error) if isinstance(error, ValueError) else f"the inputs cannot be read: {error!r}"
        try:
            connection.send(answer)
        except OSError:
            return
