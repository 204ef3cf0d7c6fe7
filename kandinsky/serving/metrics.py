"""What the server is doing, for Prometheus: jobs by state, the queue's age, seconds by stage, GPU memory, workers."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from kandinsky.serving.scheduler import Scheduler

BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 300)


class Metrics:
    """Of one server; `watch` a scheduler once it is there."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._seconds = Histogram(
            "kandinsky_stage_seconds", "Seconds of a stage of a finished job.", ["stage"],
            registry=self._registry, buckets=BUCKETS,
        )  # fmt: skip

    def seconds(self, stage: str, seconds: float) -> None:
        """A stage of a job took so long."""
        self._seconds.labels(stage).observe(seconds)

    def watch(self, scheduler: Scheduler) -> None:
        """Read the rest off a scheduler whenever it is asked for."""
        self._registry.register(_Now(scheduler))

    def text(self) -> bytes:
        """In Prometheus' format."""
        return generate_latest(self._registry)


class _Now(Collector):
    def __init__(self, scheduler: Scheduler):
        self._scheduler = scheduler

    def collect(self) -> Iterator[Metric]:
        """The present state."""
        jobs = GaugeMetricFamily("kandinsky_jobs", "Jobs that the store holds, by state.", labels=["state"])
        for status, number in self._scheduler.store.counts().items():
            jobs.add_metric([status], number)
        yield jobs
        age = self._scheduler.store.oldest_queued()
        yield GaugeMetricFamily("kandinsky_queue_age_seconds", "Age of the first queued job.", value=age or 0)
        memory = GaugeMetricFamily("kandinsky_gpu_memory_bytes", "Allocated, as a worker said last.", labels=["worker"])
        ready = GaugeMetricFamily("kandinsky_worker_ready", "1 if it has its weights.", labels=["worker"])
        ends = CounterMetricFamily("kandinsky_worker_ends", "How often it ended unasked.", labels=["worker"])
        for hand in list(self._scheduler.hands.values()):
            memory.add_metric([hand.name], hand.memory)
            ready.add_metric([hand.name], int(hand.ready))
            ends.add_metric([hand.name], hand.all_ends)
        yield from (memory, ready, ends)
