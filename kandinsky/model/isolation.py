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

Switch = tuple[Callable[[], Any], Callable[[Any], object], tuple[Any, ...]]
"""How to read it, how to set it, PyTorch's own default, and what else means the same."""


def _attribute(owner: object, name: str, *wanted: object) -> Switch:
    return partial(getattr, owner, name), partial(setattr, owner, name), wanted


_BACKENDS = torch.backends
_MATMUL, _CUDNN, _MKLDNN = _BACKENDS.cuda.matmul, _BACKENDS.cudnn, _BACKENDS.mkldnn


def _reduction(name: str) -> Switch:
    """What matmul may do in 16 bits, read as it is set: a pair where sums may not be split (split-K) either."""

    def read() -> bool | tuple[bool, bool]:
        allowed, split = getattr(_MATMUL, name), getattr(_MATMUL, f"{name}_split_k", True)
        return allowed if split else (allowed, split)

    return read, partial(setattr, _MATMUL, name), (True,)


_OF_THE_PROCESS: tuple[Switch, ...] = (
    (torch.get_default_dtype, torch.set_default_dtype, (torch.float32,)),
    (torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode, (0,)),
    _reduction("allow_bf16_reduced_precision_reduction"),
    _reduction("allow_fp16_reduced_precision_reduction"),
    _attribute(_CUDNN, "enabled", True),
    _attribute(_CUDNN, "benchmark", False),
    _attribute(_CUDNN, "deterministic", False),
    # Not `get_float32_matmul_precision` and `allow_tf32`: these raise once anyone has set what stands here. An
    # operation without a precision of its own reads as its backend's, and that as the one of all backends: with those
    # out of the way first, each reads as it was set, and is put back as that.
    *(_attribute(owner, "fp32_precision", "none") for owner in (_BACKENDS, _CUDNN, _MKLDNN)),
    *(_attribute(owner, "fp32_precision", "none", "ieee") for owner in (_MATMUL, _MKLDNN.matmul, _MKLDNN.conv)),
    _attribute(_CUDNN.conv, "fp32_precision", "tf32"),
)


def _set_all() -> ExitStack:
    """Set what differs; closing the answer puts it back. If one of them cannot be set, all are put back at once."""
    with ExitStack() as found:
        for read, write, wanted in _OF_THE_PROCESS:
            value = read()
            if value not in wanted:
                found.callback(write, value)
                write(wanted[0])
        return found.pop_all()


class _Switches:
    """Switches of the whole process: the first user of several threads sets them, the last one puts them back."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._users = 0
        self._found = ExitStack()

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._found = _set_all()
            self._users += 1

    def __exit__(self, *_error: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                self._found.close()


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
