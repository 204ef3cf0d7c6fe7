"""Seconds and peak memory of the stages of a generation."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Clock:
    """Seconds and peak memory of each stage, with the devices' queues emptied at both ends."""

    devices: frozenset[torch.device]
    seconds: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        devices = [device for device in self.devices if device.type == "cuda"]
        for device in devices:
            torch.cuda.reset_peak_memory_stats(device)
        start = time.perf_counter()
        yield
        for device in devices:
            torch.cuda.synchronize(device)
        self.seconds[name] = time.perf_counter() - start
        if devices:
            self.peak_memory[name] = sum(torch.cuda.max_memory_allocated(device) for device in devices)
