"""What happens around a stage and after a step: seconds and peak memory, a bar, and callbacks that may stop the run.

Nothing here knows of processes or of the pipeline: who shares answers over several ranks is handed in as a `Team`.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from kandinsky.errors import StoppedError

T = TypeVar("T")
OnStep = Callable[[int, int, Tensor], bool | None]
"""(steps done, 1 to `total`; total; latents [T, H, W, C] on the DiT's device) -> False to stop the run."""
AfterStep = Callable[[Any, int, int, dict[str, Any]], Mapping[str, Any] | None]
"""diffusers' callback: (pipe, index of the step, timestep, {"latents": ...}) -> the same, with other latents or not."""
Watch = Callable[[int, Tensor], tuple[bool, Tensor | None]]
"""(index of the step, latents) -> whether to go on, and latents to go on with if they are to be others."""
Stage = Callable[[str], AbstractContextManager[object]]
"""(name of a step of loading) -> a context that the step runs in."""


def unwatched(_name: str) -> AbstractContextManager[None]:
    """For steps whose time nobody takes."""
    return nullcontext()


class Team(Protocol):
    """Processes that sample together."""

    @property
    def is_main(self) -> bool: ...
    @property
    def size(self) -> int: ...
    def share(self, value: T) -> T: ...
    def share_tensor(
        self, tensor: Tensor | None, shape: tuple[int, ...], *, device: torch.device, dtype: torch.dtype
    ) -> Tensor: ...


class Steps:
    """A context manager around sampling, and `sampler.sample`'s `on_step`.

    Args:
        total: number of steps.
        team: ranks that sample together; the first one's `watch` is asked, and all go on or stop together.
        watch: asked after each step; None if it is None on every rank.
        description: of the bar.
        progress: whether to show it.
    """

    def __init__(self, total: int, *, team: Team, watch: Watch | None, description: str, progress: bool):
        self.total = total
        self._team = team
        self._watch = watch
        self._bar = tqdm(total=total, desc=description, disable=not progress, leave=False)

    def __call__(self, index: int, latents: Tensor) -> Tensor | None:
        """A step is done; returns latents to go on with if they are to be others.

        Raises:
            StoppedError: the callback, or an interrupt, stopped the run.
        """
        if latents.device.type == "cuda":
            torch.cuda.synchronize(latents.device)  # else the bar would show launches, and Ctrl-C wait for all steps
        self._bar.update()
        if self._watch is None:
            return None
        goes_on, replaced = self._watch(index, latents) if self._team.is_main else (True, None)
        goes_on, replaces = self._team.share((goes_on, replaced is not None))
        if not goes_on:
            raise StoppedError(f"a callback or an interrupt stopped the run after step {index + 1} of {self.total}")
        if not replaces:
            return None
        return self._team.share_tensor(replaced, tuple(latents.shape), device=latents.device, dtype=latents.dtype)

    def __enter__(self) -> "Steps":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()


@dataclass
class Clock:
    """Seconds of each stage, and peak bytes on the CUDA `devices`, whose queues are emptied at the end of each.

    Of a stage that is gone through again: all its seconds, and the highest peak.
    """

    devices: frozenset[torch.device]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """A stage that uses the devices."""
        devices = [device for device in self.devices if device.type == "cuda"]
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        with self.host_stage(name):
            yield
            for device in devices:
                torch.cuda.synchronize(device)
        if devices:
            peak = sum(torch.cuda.max_memory_allocated(device) for device in devices)
            self.peak_memory[name] = max(peak, self.peak_memory.get(name, 0))

    @contextmanager
    def host_stage(self, name: str) -> Iterator[None]:
        """A stage without the devices, which may be busy with another job meanwhile."""
        start = time.perf_counter()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start

    def total(self) -> dict[str, float]:
        """Seconds of each stage so far, and `total` since the clock was made."""
        return {**self.seconds, "total": time.perf_counter() - self.started}
