"""A batch of prompts through workers: the same report, and the same restart, as `batch.run` has for one pipeline.

Workers may be anywhere, since each result comes with a message or stands in its folder. Each holds one job besides the
one that it makes, so that it never waits for this process. Jobs of a worker that ends are given to others.
"""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from kandinsky.atomic import replacing
from kandinsky.batch.prompts import Item
from kandinsky.batch.report import Report
from kandinsky.batch.run import BatchResult, check_folder, locked
from kandinsky.errors import WorkersError
from kandinsky.serving.job import Asked
from kandinsky.serving.messages import Done, Failed, FromWorker, Gone, Make, Ready, Refused, Stop, Stopped
from kandinsky.serving.processes import Start, Worker
from kandinsky.user_files.paths import user_path

AHEAD = 2
"""Jobs that a worker holds."""
MOST_LOSSES = 3
"""Workers that may end while they hold an item."""
PAUSE = 1.0
"""Seconds before a worker that ended is started again."""


def check_items(items: Sequence[Item]) -> None:
    """Refuse what cannot come back as one file.

    Raises:
        ValueError: names the item.
    """
    for item in items:
        if item.name.endswith("/"):
            raise ValueError(f"save_path={item.name!r}: a folder of png frames does not come back from other machines")
        for name, given in _inputs(item).items():
            if not isinstance(given, str | Path):
                raise ValueError(f"{item.name}: {name} must be a file to go to other machines")


def run_batch_on(workers: "Workers", items: Sequence[Item], folder: str | Path) -> BatchResult:
    """Make what is not done yet of `items` in `folder`.

    Raises:
        ValueError: the folder cannot be written, or another batch writes in it.
        WorkersError: the weights cannot be loaded anywhere.
    """
    target = Path(folder)
    check_items(items)
    check_folder(target, items)
    with locked(target):
        start, report = time.perf_counter(), Report(target)
        left = report.left(items)
        failed = workers.run(left, report)
        made = len(left) - len(failed)
        return BatchResult(report.path, made, len(items) - len(left), failed, time.perf_counter() - start)


class Workers:
    """Workers that are started by `starts`; more may be added meanwhile, from any thread."""

    def __init__(self, starts: dict[str, Start]):
        self._starts = dict(starts)
        self._inbox: SimpleQueue[tuple[str, Any]] = SimpleQueue()
        self._held: dict[str, list[Item]] = {}
        self._running: dict[str, Worker] = {}
        self._queue: list[Item] = []
        self._losses: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._ever_ready = False

    def add(self, name: str, start: Start) -> None:
        """One more."""
        self._inbox.put(("add", (name, start)))

    def run(self, items: Sequence[Item], report: Report) -> dict[str, str]:
        """Make the items; name and error of each that failed."""
        self._queue = list(items)
        by_id = {str(item.number): item for item in items}
        for name in self._starts if items else ():
            self._begin(name)
        try:
            while self._queue or any(self._held.values()):
                what, values = self._inbox.get()
                if what == "add":
                    name, start = values
                    self._starts[name] = start
                    self._begin(name)
                elif what == "begin":
                    self._begin(values)
                else:
                    worker, message = values
                    self._hear(worker, message, by_id, report)
        finally:
            for worker in self._running.values():
                worker.send(Stop())
                worker.kill()
        return self._failed

    def _begin(self, name: str) -> None:
        self._running[name] = self._starts[name](name, lambda *said: self._inbox.put(("said", said)))

    def _hear(self, worker: Worker, message: FromWorker, by_id: dict[str, Item], report: Report) -> None:
        name = worker.name
        if self._running.get(name) is not worker:
            return
        if isinstance(message, Ready):
            self._ever_ready = True
            self._held[name] = []
        elif isinstance(message, Refused) and not self._ever_ready:
            raise WorkersError(f"the weights cannot be loaded: {message.reason}")
        elif isinstance(message, Done | Failed | Stopped):
            item = by_id[message.job_id]
            if item in self._held[name]:  # each process of a group may say that it failed
                self._held[name].remove(item)
                self._end(item, message, report)
        elif isinstance(message, Gone):
            self._lose(name, message, report)
        for each in list(self._running.values()):  # what one has lost may be for another, which has nothing to say
            self._give(each, report)

    def _give(self, worker: Worker, report: Report) -> None:
        held = self._held.get(worker.name)
        while held is not None and self._queue and len(held) < AHEAD and worker.name in self._running:
            item = self._queue.pop(0)
            try:
                files = _files(item)
            except OSError as error:
                self._fail(item, str(error), report)
                continue
            held.append(item)
            report.started(item)
            worker.send(Make(str(item.number), _asked(item), "", files=files))

    def _end(self, item: Item, message: Done | Failed | Stopped, report: Report) -> None:
        if not isinstance(message, Done):
            self._fail(item, message.reason if isinstance(message, Failed) else "it was stopped", report)
            return
        try:
            with replacing(report.path_of(item)) as path:
                path.write_bytes(message.content or b"")
        except OSError as error:  # a full disk, say: the others may still find room
            self._fail(item, str(error), report)
            return
        report.done(item, {"timings": dict(message.timings)})

    def _fail(self, item: Item, reason: str, report: Report) -> None:
        self._failed[item.name] = reason
        report.failed(item, WorkersError(reason))

    def _lose(self, name: str, message: Gone, report: Report) -> None:
        del self._running[name]
        for item in reversed(self._held.pop(name, [])):
            self._losses[item.name] = self._losses.get(item.name, 0) + 1
            if self._losses[item.name] >= MOST_LOSSES:
                self._fail(item, f"{MOST_LOSSES} workers ended while they held it: {message.how}", report)
            else:
                self._queue.insert(0, item)
        time.sleep(PAUSE)
        self._inbox.put(("begin", name))


def _inputs(item: Item) -> dict[str, Any]:
    """What an item gives besides its text, without how it is used."""
    return {name: given for name, given in item.inputs.named.items() if name not in ("strength", "fit")}


def _names(item: Item) -> dict[str, str]:
    """Of the files of `_inputs` where the item is made: as they were, since they stand in the record."""
    return {name: f"{name}/{Path(given).name}" for name, given in _inputs(item).items()}


def _files(item: Item) -> dict[str, bytes]:
    return {file: user_path(_inputs(item)[name], name).read_bytes() for name, file in _names(item).items()}


def _asked(item: Item) -> Asked:
    job, shape, output = item.job, item.shape, item.output
    assert job.path is not None
    asked = Asked(
        text=job.prompt,
        seed=job.seed,
        time_length=shape.seconds,
        width=shape.width,
        height=shape.height,
        ending=job.path.suffix,
    )
    strength, fit = item.inputs.strength, item.inputs.fit
    assert isinstance(strength, float | int | None)
    assert isinstance(fit, str | None)
    asked = replace(asked, inputs=_names(item), strength=strength, fit=fit, loras=job.loras)
    asked = replace(asked, interpolate=output.interpolate, interpolate_with=output.interpolate_with)
    return replace(asked, fps=output.fps, crf=output.crf, codec=output.codec, metadata=output.metadata)
