"""What threads need that load beside each other: their GPU, and turns."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

SWITCH_SECONDS = 2e-4


@contextmanager
def switching_often() -> Iterator[None]:
    """Threads take turns every 0.2 ms, in all of the process.

    Those that read ask for Python's lock thousands of times, and would get it only every 5 ms from one that computes.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def current_gpu(device: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU this thread's current one, which for a new thread is the first; no other device has such a thing."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
