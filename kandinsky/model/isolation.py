"""PyTorch's global state as this library expects it, whatever the caller has set.

Results depend on the library's arguments alone: not on an autocast that is on, a default device or dtype, or switches
that let PyTorch compute with less precision or choose kernels by timing. What differs is set meanwhile and put back
afterwards; where nothing differs, nothing is touched. Not here: the number of threads, which is the machine's matter.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import Lock
from typing import Any

import torch

Switch = tuple[Callable[[], Any], Callable[[Any], object], Any]
"""How to read it, how to set it, and PyTorch's own default."""


def _attribute(owner: object, name: str, wanted: object) -> Switch:
    return partial(getattr, owner, name), partial(setattr, owner, name), wanted


_MATMUL, _CUDNN = torch.backends.cuda.matmul, torch.backends.cudnn
_OF_THE_PROCESS: tuple[Switch, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, torch.float32),
    (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "highest"),
    (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, False),
    _attribute(_MATMUL, "allow_bf16_reduced_precision_reduction", True),
    _attribute(_MATMUL, "allow_fp16_reduced_precision_reduction", True),
    _attribute(_CUDNN, "enabled", True),
    _attribute(_CUDNN, "benchmark", False),
    _attribute(_CUDNN, "deterministic", False),
    _attribute(_CUDNN, "allow_tf32", True),
)


class _Switches:
    """Switches of the whole process: the first user of several threads sets them, the last one puts them back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._found: list[tuple[Callable[[Any], object], Any]] = []

    def __enter__(self) -> None:
        with self._lock:
            self._users += 1
            if self._users > 1:
                return
            for read, write, wanted in _OF_THE_PROCESS:
                found = read()
                if found != wanted:
                    self._found.append((write, found))
                    write(wanted)

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._users -= 1
            while self._users == 0 and self._found:
                write, found = self._found.pop()
                write(found)


_switches = _Switches()


@contextmanager
def isolated() -> Iterator[None]:
    """Meanwhile PyTorch's global state, as this thread sees it, is PyTorch's own default."""
    with ExitStack() as stack:
        for kind in ("cpu", "cuda", "mps"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        if torch.get_default_device() != torch.device("cpu"):
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(_switches)
        yield
