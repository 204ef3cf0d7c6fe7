"""How the process of a command ends: at once, when all that it has to do is done.

Python takes a process apart at its end and looks for garbage several times meanwhile, which among PyTorch's objects
takes a second; the system takes back memory, files and GPUs without that. Threads have been waited for and everybody
who registered with `atexit` has been called by then. What is not called are destructors, and what a C library has
registered: a profiler that writes its file there gets it with KANDINSKY_SLOW_EXIT=1.
"""

import atexit
import os
import sys
from collections.abc import Callable
from typing import NoReturn

SLOW = "KANDINSKY_SLOW_EXIT"
"""Variable of the environment that, if it is not empty, leaves the end to Python."""


class _Ending:
    """Called last of all that is registered with `atexit`, if it was registered first."""

    code: int | None = None
    """To end with; None leaves the end to Python, which has a traceback to show, say."""

    def __call__(self) -> None:
        if self.code is None or os.environ.get(SLOW):
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                if stream is not None:
                    stream.flush()
        except (OSError, ValueError):  # nobody reads it any more, or it is closed: Python has its own way with that
            return
        os._exit(self.code)


def end_with(command: Callable[[], int]) -> NoReturn:
    """Run the command that this process is for, and end with its exit code. To be called before anything is imported
    that registers with `atexit`.
    """
    ending = _Ending()
    atexit.register(ending)
    try:
        code = command()
    except SystemExit as end:  # of --help, say
        ending.code = end.code if isinstance(end.code, int) else 0 if end.code is None else None
        raise
    ending.code = code
    sys.exit(code)
