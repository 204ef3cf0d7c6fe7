"""Processes that work together, one for each device: who they are, and what they share between steps.

`boxes` has what they send each other within a step.

Without a process group there is one rank, the main one, and every method is the identity. Under torchrun (or
`torch.distributed.launch`) `open_group` makes the group; one that the caller made is used as it is and never closed.
The backend is NCCL for CUDA devices and gloo for the CPU. Python objects go through the group's store, where a rank may
wait as long as it has to: a collective would give up after the backend's ten minutes, on a rank whose user thinks, or
whose own work is done early.
"""

import atexit
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from kandinsky.parallel.watchdog import Watchdog

T = TypeVar("T")
LAUNCHER_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE = 1.5
"""Seconds that a process waits for the others in silence."""
LOOKS = (0.0002, 0.01)
"""Seconds between two looks into the store: at least, and at most."""
LATER = 1 / 16
"""Of what a rank has waited for: how much later than at once it may see that it is there, but for these bounds."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the default process group."""

    rank: int = 0
    size: int = 1

    @classmethod
    def current(cls) -> "Ranks":
        """Ranks of the default process group if one is initialised, else one rank."""
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size())
        return cls()

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def bounds(self, total: int) -> list[int]:
        """Where each rank's share of `total` things begins, and at the end `total`."""
        return [index * total // self.size for index in range(self.size + 1)]

    def share(self, value: T) -> T:
        """The main rank's `value` on every rank; for small Python objects. Waits as long as it takes."""
        return value if self.size == 1 else _post().share(value, self)

    def share_made(self, make: Callable[[], T]) -> T:
        """What the main rank makes, on every rank; if that is refused, every rank raises its ValueError."""
        if self.size == 1:
            return make()
        made, refusal = None, None
        if self.is_main:
            try:
                made = make()
            except ValueError as error:
                refusal = str(error)
        made, refusal = self.share((made, refusal))
        if refusal is not None:
            raise ValueError(refusal)
        assert made is not None
        return made

    def collect(self, value: T) -> list[T] | None:
        """Every rank's `value` on the main rank, in order; None on the others. Waits as long as it takes."""
        return [value] if self.size == 1 else _post().collect(value, self)

    def share_tensor(
        self, tensor: Tensor | None, shape: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
    ) -> Tensor:
        """The main rank's tensor on every rank's `device`; other ranks pass None."""
        if tensor is None:
            tensor = torch.empty(shape, device=device, dtype=dtype)
        tensor = tensor.to(device, dtype).contiguous()
        if self.size > 1:
            dist.broadcast(tensor, src=0)
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        """`tensor` of every rank, all of one shape, stacked: `[size, ...]`."""
        if self.size == 1:
            return tensor[None]
        whole = tensor.new_empty(self.size, *tensor.shape)
        dist.all_gather(list(whole.unbind()), tensor.contiguous())
        return whole


class _Post:
    """Numbered letters in a group's store; every rank counts the same ones."""

    def __init__(self, group: object, store: Any):
        self.group, self.store = group, store
        self._number = 0

    def share(self, value: T, ranks: Ranks) -> T:
        key = self._next_key()
        if ranks.is_main:
            self.store.set(key, pickle.dumps(value))
            return value
        found = self._wait(key)
        if self.store.add(f"{key} read", 1) == ranks.size - 1:  # the last reader tidies up
            self.store.delete_key(key)
            self.store.delete_key(f"{key} read")
        return found

    def collect(self, value: T, ranks: Ranks) -> list[T] | None:
        key = self._next_key()
        if not ranks.is_main:
            self.store.set(f"{key} {ranks.rank}", pickle.dumps(value))
            return None
        values = [value]
        for rank in range(1, ranks.size):
            values.append(self._wait(f"{key} {rank}"))
            self.store.delete_key(f"{key} {rank}")
        return values

    def _next_key(self) -> str:
        self._number += 1
        return f"kandinsky letter {self._number}"

    def _wait(self, key: str) -> Any:
        began, (shortest, longest) = time.monotonic(), LOOKS
        while not self.store.check([key]):
            time.sleep(min(max(shortest, LATER * (time.monotonic() - began)), longest))
        return pickle.loads(self.store.get(key))  # noqa: S301  # of this group's own processes


_posts: dict[str, _Post] = {}


def _post() -> _Post:
    """Of the default group; another one begins to count anew."""
    group = dist.group.WORLD
    post = _posts.get("default")
    if post is None or post.group is not group:
        # A connection of its own: a wait of the group's in the store would hold up ours.
        store = dist.distributed_c10d._get_default_store()
        post = _posts["default"] = _Post(group, _own_connection(store))
    return post


def _own_connection(store: Any) -> Any:
    try:
        return store.clone()
    except (RuntimeError, AttributeError):  # of a store that has no connections
        return store


def local_rank(*, distributed: bool = True) -> int:
    """This process's number on its machine; 0 without a launcher, or where it is ignored.

    Raises:
        ValueError: LOCAL_RANK is not a number.
    """
    return _number("LOCAL_RANK", "0") if distributed else 0


def processes_here() -> int:
    """How many processes the launcher started on this machine; 1 without one."""
    return max(_number("LOCAL_WORLD_SIZE", "1"), 1) if launched() else 1


def launched_rank() -> int:
    """This process's number among all that a launcher started; 0 without one."""
    return _number("RANK", "0")


def launched() -> bool:
    """Whether a launcher started this process as one of several.

    Raises:
        ValueError: a launcher's variable is not what it may be; the message names it.
    """
    if not all(name in os.environ for name in LAUNCHER_VARIABLES):
        return False
    size, rank = _number("WORLD_SIZE"), _number("RANK")
    if size < 1 or not 0 <= rank < size:
        raise ValueError(f"RANK={rank}, WORLD_SIZE={size} in the environment: allowed is 0 <= RANK < WORLD_SIZE")
    return size > 1


def ignore_launcher() -> None:
    """Forget a launcher's variables, in this process and those that it starts."""
    for name in (*LAUNCHER_VARIABLES, "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)


def _number(name: str, default: str | None = None) -> int:
    text = os.environ[name] if default is None else os.environ.get(name, default)
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}={text!r} in the environment: allowed is a whole number") from None


def open_group(device: torch.device, *, distributed: bool = True) -> Ranks:
    """The ranks of this process: of the caller's group, of the launcher's, or one alone.

    A group that is opened here is watched (see `watchdog`), and closed when the process ends.

    Args:
        distributed: False ignores a launcher and groups.
    """
    if not distributed:
        return Ranks()
    if dist.is_available() and not dist.is_initialized() and launched():
        with _saying_what_is_waited_for(os.environ):
            if device.type == "cuda":
                torch.cuda.set_device(device)
                dist.init_process_group("nccl", device_id=device)
            else:
                dist.init_process_group("gloo")
        ranks = Ranks.current()
        watchdog = Watchdog.start(ranks.rank, ranks.size)
        atexit.register(_close, watchdog)
    return Ranks.current()


@contextmanager
def _saying_what_is_waited_for(variables: Mapping[str, str]) -> Iterator[None]:
    """A body that waits longer than `PATIENCE` tells for whom, and which variables said so."""
    given = ", ".join(f"{name}={variables[name]}" for name in LAUNCHER_VARIABLES)
    text = (
        f"waiting for {variables['WORLD_SIZE']} processes, because these variables are set: {given}. "
        "To work alone: distributed=False, --no-distributed, or unset them"
    )
    timer = threading.Timer(PATIENCE, lambda: print(text, file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        error.add_note(f"the process group was joined because these variables are set: {given}")
        raise
    finally:
        timer.cancel()


def _close(watchdog: Watchdog) -> None:
    """Wait for the others, then end the group; after a failure only stop watching."""
    if watchdog.finish() and dist.is_initialized():
        dist.destroy_process_group()
