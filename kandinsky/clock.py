"""Seconds and peak memory of the stages of a generation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Clock:
    """Seconds of each stage, and peak bytes on the CUDA `devices`, whose queues are emptied at the end of each."""

    devices: frozenset[torch.device]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)

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
            self.peak_memory[name] = sum(torch.cuda.max_memory_allocated(device) for device in devices)

    @contextmanager
    def host_stage(self, name: str) -> Iterator[None]:
        """A stage without the devices, which may be busy with another job meanwhile."""
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
