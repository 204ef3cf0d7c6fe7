"""What happened, a line of JSON each, on stderr: ids of jobs and names of workers, never a prompt unless asked."""

import json
import logging
import sys
import time
from contextlib import suppress
from threading import Lock
from typing import Any, TextIO


class Log:
    """Writes lines to `stream`, by default stderr; may be called from any thread.

    A line that cannot be written, since the disk is full or nobody reads any more, is lost: jobs go on without it.
    """

    def __init__(self, stream: TextIO | None = None):
        self._stream = stream or sys.stderr
        self._lock = Lock()

    def __call__(self, event: str, **facts: Any) -> None:
        """Write one line."""
        line = json.dumps({"time": round(time.time(), 3), "event": event, **facts}, default=str)
        with self._lock, suppress(OSError, ValueError):
            print(line, file=self._stream, flush=True)


class Lines(logging.Handler):
    """Makes lines of a `Log` of what a library says by `logging`."""

    def __init__(self, log: Log):
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; of an error with its traceback, in which no values stand."""
        trace = {"traceback": logging.Formatter().formatException(record.exc_info)} if record.exc_info else {}
        self._log(f"server {record.levelname.lower()}", message=record.getMessage(), **trace)
