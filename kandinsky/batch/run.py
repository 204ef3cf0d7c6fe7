"""Many prompts through one pipeline, in a folder, restartable.

While the DiT works on one video, the file of the last one is finished, and the text encoder reads the next prompt
(beside the DiT where it has a device of its own). Items that are done are skipped, as `report` tells; an item that
fails is noted and the others go on. One that fails after sampling leaves its latents beside its place, and its error
names the command that finishes it.

With several processes the pipeline decides: if they make each video together all of them take every item; if each
works alone, every one takes each size-th item. Processes that work together cannot lose one video and stay in step:
there a failure ends the batch, and a restart goes on after it.
"""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from filelock import FileLock, Timeout
from torch import Tensor

from kandinsky.batch.prompts import Item
from kandinsky.batch.report import Report
from kandinsky.model.isolation import isolated
from kandinsky.output.inputs import check_no_input
from kandinsky.output.paths import check_target
from kandinsky.output.result import GenerationResult
from kandinsky.output.video import check_encoder
from kandinsky.runner import Finish, Runner
from kandinsky.user_files.paths import user_path


@dataclass(frozen=True)
class BatchResult:
    """What became of a batch.

    Args:
        report: file with a JSON line for each item.
        made, skipped: numbers of items, the latter done before.
        failed: file name and error of each that failed; a restart tries them again.
        seconds: for the whole batch, without loading.
    """

    report: Path
    made: int
    skipped: int
    failed: dict[str, str]
    seconds: float


def run_batch(pipe: Runner, items: Sequence[Item], folder: str | os.PathLike[str]) -> BatchResult | None:
    """Make what is not done yet of `items` (of `prompts.read_prompts` or `make_items`) in `folder`.

    Returns:
        The result; None on ranks other than the main one.

    Raises:
        ValueError: items were made for another model set, the folder cannot be written, or another batch writes in it.
        Exception: of processes that work together, or if it cannot be noted in the report, whatever failed.
    """
    for item in items:
        item.check_made_for(pipe.model_set)
    target = user_path(folder, "folder")
    if not pipe.ranks.is_main:
        if pipe.team.is_main:  # it writes too, perhaps on a machine of its own
            check_folder(target, items)
        return _make(pipe, items, Report(target))
    check_folder(target, items)
    with locked(target):
        return _make(pipe, items, Report(target))


def _make(pipe: Runner, items: Sequence[Item], report: Report) -> BatchResult | None:
    start, alone = time.perf_counter(), pipe.team.size == 1
    # What the main rank drew and found is what all of them take.
    items, left = pipe.ranks.share((items, report.left(items) if pipe.ranks.is_main else []))
    mine = left[pipe.ranks.rank :: pipe.ranks.size] if alone else left
    run = _Run(pipe, report if pipe.team.is_main else None, stop_at_failure=not alone)
    run.all(mine)
    everyone = pipe.ranks.collect(run.failures)  # until every rank is done, however long that takes
    if everyone is None:
        return None
    failed = {item.name: error for item in left for part in everyone if (error := part.get(item.name)) is not None}
    skipped = len(items) - len(left)
    return BatchResult(report.path, len(left) - len(failed), skipped, failed, time.perf_counter() - start)


def check_folder(folder: Path, items: Sequence[Item]) -> None:
    """Make the folder if it is not there, and check that what is asked for can be written in it.

    Raises:
        ValueError: it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"save_path={str(folder)!r}: must be a folder that is there or can be made: {error}"
        ) from error
    check_target(folder / "0001.png", is_image=True)
    for item in items:
        assert item.job.path is not None
        check_no_input(folder / item.job.path, item.inputs.files)
    for codec in {item.output.codec for item in items if item.output.codec is not None}:
        check_encoder(codec)


def locked(folder: Path) -> AbstractContextManager[object]:
    """Meanwhile no other batch writes in the folder.

    Raises:
        ValueError: another one does.
    """
    try:
        return FileLock(folder / ".batch.lock", timeout=0).acquire()
    except Timeout as error:
        raise ValueError(f"save_path={str(folder)!r}: another batch is writing in this folder") from error


def _isolated(encoder: Callable[[str], Tensor], prompt: str) -> Tensor:
    with isolated():
        return encoder(prompt)


class _Run:
    """One process's part of a batch."""

    def __init__(self, pipe: Runner, report: Report | None, *, stop_at_failure: bool):
        self.pipe = pipe
        self.report = report
        self.stop_at_failure = stop_at_failure
        self.failures: dict[str, str] = {}
        """Name and error of each item that failed here."""

    def all(self, items: Sequence[Item]) -> None:
        """Make the items. Whatever ends this, the file that is being finished is finished first."""
        with ThreadPoolExecutor(1, "text encoder") as reader, ThreadPoolExecutor(1, "finisher") as finisher:
            last: Future[None] | None = None
            for item, text in self._read_ahead(items, reader):
                finish = self._try(item, text)
                # Submitted before anything else is waited for: what is sampled is not to be lost with the wait.
                following = finisher.submit(self._finish, item, finish) if finish is not None else None
                if last is not None:
                    last.result()
                last = following
            if last is not None:
                last.result()

    def _read_ahead(
        self, items: Sequence[Item], reader: ThreadPoolExecutor
    ) -> Iterator[tuple[Item, "Future[Tensor] | None"]]:
        """Each item with its text embedding; that of the next one is begun before."""
        encoder = self.pipe.text_encoder
        if encoder is None:
            yield from ((item, None) for item in items)
            return

        def begin(item: Item) -> "Future[Tensor]":
            text = reader.submit(_isolated, encoder, item.job.prompt)
            if encoder.device.type == "cuda":
                wait([text])  # for its launches only, which must not mix with the DiT's: they may become a CUDA graph
            return text

        texts = [begin(item) for item in items[:1]]
        for item, following in zip_longest(items, items[1:]):
            text = texts.pop()
            if following is not None:
                texts.append(begin(following))
            yield item, text

    def _try(self, item: Item, text: "Future[Tensor] | None") -> Finish | None:
        path = item.job.path
        if self.report is not None:
            self.report.started(item)
            path = self.report.path_of(item)
        try:
            if self.report is not None:
                check_target(f"{self.report.folder}/{item.name}", is_image=item.shape.is_image)
            embedding = None if text is None else text.result()
            given = item.given(self.pipe.model_set) if self.pipe.team.is_main else item.given_elsewhere
            job = replace(item.job, path=path)
            return self.pipe.begin(job, item.shape, item.output, text_embed=embedding, given=given)
        except Exception as error:  # noqa: BLE001  # whatever it is, the other items must not be lost with it
            self._failed(item, error)
            return None

    def _finish(self, item: Item, finish: Finish) -> None:
        try:
            result = finish()
            if self.report is not None:
                self.report.done(item, {"timings": result.timings} if isinstance(result, GenerationResult) else {})
        except Exception as error:  # noqa: BLE001  # as above
            self._failed(item, error)

    def _failed(self, item: Item, error: Exception) -> None:
        self.failures[item.name] = f"{type(error).__name__}: {error}"
        try:
            if self.report is not None:
                self.report.failed(item, error)
        except OSError as unwritten:
            raise error from unwritten
        if self.stop_at_failure:
            raise error
