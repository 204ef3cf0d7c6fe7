"""The server's process: listens, waits for signals, and ends in order.

The first SIGTERM or Ctrl-C drains: what runs is finished, the rest stays queued, and the server answers until then. The
second one ends at once; nothing is lost by that either.
"""

import asyncio
import logging
import socket
import sys
from contextlib import ExitStack, suppress
from threading import Event, Thread
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.auto import AutoHTTPProtocol

from kandinsky.serving.guard import Guard
from kandinsky.serving.log import Lines, Log
from kandinsky.serving.retention import Limits, tidy
from kandinsky.serving.scheduler import Scheduler

TIDY = 60.0
"""Seconds between two looks for what is too old or too much."""
SWITCH = 0.0005
"""Seconds after which Python's threads take turns: an answer passes through several, which all do little. The usual
5 ms for each turn would be most of its time."""
GREETING = 30.0
"""Seconds for a connection to send its first request, and the head of each."""
MAX_HEAD = 2**16
"""Bytes of a head, about: pieces that came before its end."""
GOODBYE = 3
"""Seconds for answers that are under way when all else is done."""


BACKLOG = 256
"""Connections that wait to be taken, and that are taken at once."""
SPARE = 100
"""Open files that connections leave to all else."""
_Connection: Any = AutoHTTPProtocol  # of httptools or h11, whichever is installed


class Connection(_Connection):
    """uvicorn's, with ends: else strangers could hold all that the system lets us have.

    One that asks for nothing is closed after `GREETING`, and so is one whose head has no end by then. A head has at
    most about `MAX_HEAD`: httptools takes any, h11 has an end of its own and calls nothing of ours.
    """

    most = 0
    """That there may be; one more is closed at once."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        """uvicorn's, and a look later."""
        super().connection_made(transport)
        self._heads, self._in_head, self._head_size = 0, False, 0
        if len(self.server_state.connections) > self.most:
            transport.close()
        self.loop.call_later(GREETING, self._look)

    def on_message_begin(self) -> None:
        """Of httptools."""
        self._heads, self._in_head, self._head_size = self._heads + 1, True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Of httptools."""
        self._in_head = False
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        """uvicorn's, and a look at a head that is not complete yet."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        if self._head_size == 0:
            self.loop.call_later(GREETING, self._look_at_head, self._heads)
        self._head_size += len(data)
        if self._head_size > MAX_HEAD:
            self.send_400_response(f"The head of a request may have {MAX_HEAD} bytes.")

    def _look(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def _look_at_head(self, number: int) -> None:
        if self._in_head and self._heads == number and not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """uvicorn, with signals of our own."""

    def __init__(self, app: Guard, scheduler: Scheduler, *, most: int):
        bounded = type("Bounded", (Connection,), {"most": most})
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, timeout_graceful_shutdown=GOODBYE, timeout_keep_alive=75,
            server_header=False, lifespan="off", ws="none", http=bounded, backlog=BACKLOG, log_config=None,
        )  # fmt: skip
        super().__init__(config)
        self._scheduler = scheduler

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  # uvicorn's signature
        """A signal."""
        if self._scheduler.draining:
            self._scheduler.kill()
            self.should_exit = self.force_exit = True
        else:
            self._scheduler.drain()

    def exit_when_drained(self) -> None:
        """Wait for the scheduler."""
        self._scheduler.drained.wait()
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        ValueError: names the address and the system's reason.
    """
    if not 0 <= port < 2**16:
        raise ValueError(f"port={port}: allowed is 0 to {2**16 - 1}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with ExitStack() as opened:
            listener = opened.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
            opened.pop_all()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"port={port}, host={host!r}: {error}") from error
    return listener


def serve(app: Guard, scheduler: Scheduler, listener: socket.socket, *, limits: Limits, log: Log) -> None:
    """Serve until a signal, or until the workers turn out to be impossible (`scheduler.refused`)."""
    sys.setswitchinterval(SWITCH)
    lines, loggers = Lines(log), [logging.getLogger(name) for name in ("uvicorn.error", "asyncio")]
    for logger in loggers:
        logger.addHandler(lines)
    server, ended = Server(app, scheduler, most=max(most_files() - BACKLOG - SPARE, SPARE)), Event()
    scheduler.start()
    Thread(target=server.exit_when_drained, name="end", daemon=True).start()
    Thread(target=_tidy, args=(scheduler, limits, log, ended), name="tidy", daemon=True).start()
    try:
        server.run(sockets=[listener])
    finally:
        for logger in loggers:
            logger.removeHandler(lines)
        ended.set()
        if scheduler.drained.is_set() and not server.force_exit:
            scheduler.wait_until_gone(GOODBYE)
        scheduler.kill()


def most_files() -> int:
    """How many files this process may have open, each connection among them: as many as the system lets us have."""
    try:
        import resource
    except ImportError:  # Windows
        return 2**13
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS has less than it says
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return soft if soft != resource.RLIM_INFINITY else 2**20


def _tidy(scheduler: Scheduler, limits: Limits, log: Log, ended: Event) -> None:
    while not ended.wait(TIDY):
        try:
            for job_id in tidy(scheduler.store, limits):
                log("job deleted", job=job_id, reason="kept long enough")
        except Exception as error:  # noqa: BLE001  # a full disk, say: the next look comes
            log("tidying failed", error=str(error))
