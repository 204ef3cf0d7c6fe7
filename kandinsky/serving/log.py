"""What happened, a line of JSON each, on stderr: ids of jobs and names of workers, never a prompt unless asked."""

import json
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
