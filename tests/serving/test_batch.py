"""A batch through workers: the report and the restart of a batch of one pipeline, whatever workers do."""

import errno
from pathlib import Path
from threading import Thread

import pytest
from helpers import LONG, SMALL
from serving_kit import HandWorker, until

from kandinsky.batch.prompts import make_items
from kandinsky.errors import WorkersError
from kandinsky.serving import batch
from kandinsky.serving.batch import Workers, run_batch_on
from kandinsky.serving.messages import Failed, Gone, Ready, Refused

SETTINGS = {"seed": 1, "time_length": 1, "width": 64, "height": 64}


class Quick(HandWorker):
    """Finishes each job as soon as it has it, unless `does` does something else."""

    def __init__(self, name, report, does=None):
        super().__init__(name, report)
        self._does = does
        report(self, Ready(0))

    def send(self, message):
        super().send(message)
        if self.got and not self.ended and (self._does is None or not self._does(self)):
            self.finish(content=f"seed {self.got[-1].asked.seed}".encode())


def items(*prompts):
    return make_items(list(prompts), SETTINGS, model_set=SMALL)


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(batch, "PAUSE", 0.0)


def test_made_and_skipped_the_next_time(tmp_path):
    result = run_batch_on(Workers({"a": Quick, "b": Quick}), items("a", "b", "c"), tmp_path)
    assert (result.made, result.skipped, result.failed) == (3, 0, {})
    assert (tmp_path / "0002.mp4").read_bytes() == b"seed 2"
    again = run_batch_on(Workers({"a": Quick}), items("a", "b", "c", "d"), tmp_path)
    assert (again.made, again.skipped) == (1, 3)


def test_jobs_of_a_worker_that_ends_go_to_another(tmp_path):
    def dies(worker):
        if len(worker.got) == 2 and worker.name == "a":
            worker.report(worker, Gone("its node is lost"))
            return True
        return worker.name == "a" and worker.ended

    lost = []

    def start(name, report):
        worker = Quick(name, report, dies if not lost else None)
        lost.append(worker)
        return worker

    result = run_batch_on(Workers({"a": start}), items("a", "b", "c"), tmp_path)
    assert (result.made, result.failed, len(lost)) == (3, {}, 2)


def test_what_is_lost_goes_to_a_worker_that_waits(tmp_path):
    """The one that is started in the place of the lost one may wait for room for ever."""
    workers = {}

    def start(name, report):
        first = name not in workers
        workers[name] = Quick(name, report, lambda one: one.name == "a") if first else HandWorker(name, report)
        return workers[name]

    run = Workers({"a": start, "b": start})
    thread = Thread(target=lambda: run_batch_on(run, items(*"abcdef"), tmp_path), daemon=True)
    thread.start()
    lost = workers.get("a") or until(lambda: workers.get("a"))
    until(lambda: len(list(tmp_path.glob("*.mp4"))) == 4)  # the other one has nothing more to do
    lost.report(lost, Gone("its node is lost"))
    until(lambda: len(list(tmp_path.glob("*.mp4"))) == 6)
    thread.join(LONG)
    assert not thread.is_alive()


def test_an_item_that_takes_workers_with_it_and_one_that_fails(tmp_path):
    def poison(worker):
        text = worker.got[-1].asked.text
        if text == "poison":
            worker.report(worker, Gone("exit code -9"))
        elif text == "wrong":
            worker.report(worker, Failed(worker.got[-1].job_id, "generation_failed", "no"))
        return text in ("poison", "wrong")

    workers = Workers({"a": lambda name, report: Quick(name, report, poison)})
    result = run_batch_on(workers, items("wrong", "poison"), tmp_path)
    assert result.made == 0
    assert result.failed["0001.mp4"] == "no"
    assert "3 workers ended while they held it" in result.failed["0002.mp4"]


def test_two_processes_of_a_group_say_that_one_item_failed(tmp_path):
    def fails(worker):
        if worker.got[-1].asked.text == "wrong":
            for reason in ("out of memory", "the same"):
                worker.report(worker, Failed(worker.got[-1].job_id, "out_of_memory", reason))
        return worker.got[-1].asked.text == "wrong"

    workers = Workers({"a": lambda name, report: Quick(name, report, fails)})
    result = run_batch_on(workers, items("wrong", "b"), tmp_path)
    assert (result.made, result.failed) == (1, {"0001.mp4": "out of memory"})


def test_low_rank_weights_of_an_item_go_with_it(tmp_path):
    seen = []
    workers = Workers({"a": lambda name, report: Quick(name, report, lambda worker: seen.append(worker.got[-1]))})
    asked = make_items(["a", {"text": "b", "loras": {}}], {**SETTINGS, "loras": {"one": 0.5}}, model_set=SMALL)
    assert run_batch_on(workers, asked, tmp_path).made == 2
    assert [order.asked.loras for order in seen] == [{"one": 0.5}, {}]


def test_what_cannot_be_written_fails_alone(tmp_path, monkeypatch):
    real = Path.write_bytes

    def full(path, content):
        if content == b"seed 1":
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run_batch_on(Workers({"a": Quick}), items("a", "b"), tmp_path)
    assert (result.made, list(result.failed)) == (1, ["0001.mp4"])
    assert "No space left" in result.failed["0001.mp4"]


def test_workers_that_join_later(tmp_path):
    workers = Workers({})
    workers.add("late", Quick)
    assert run_batch_on(workers, items("a"), tmp_path).made == 1


def test_weights_that_cannot_be_loaded(tmp_path):
    def start(name, report):
        worker = HandWorker(name, report)
        report(worker, Refused("ValueError: no such device", argument=True))
        return worker

    with pytest.raises(WorkersError, match="no such device"):
        run_batch_on(Workers({"a": start}), items("a"), tmp_path)
    until(lambda: True)


def test_what_cannot_come_back(tmp_path):
    folder = make_items([{"text": "a", "save_path": "frames/"}], SETTINGS, model_set=SMALL)
    with pytest.raises(ValueError, match="does not come back"):
        run_batch_on(Workers({}), folder, tmp_path)
