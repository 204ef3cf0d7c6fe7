"""What Prometheus reads: names, labels and values."""

import pytest
from prometheus_client.parser import text_string_to_metric_families
from serving_kit import ASKED, Hands, until

from kandinsky.serving.job import STATUSES
from kandinsky.serving.messages import Done, Ready
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.store import Store


@pytest.fixture
def hands(tmp_path):
    with Store(tmp_path, clock=lambda: 100.0) as store:
        metrics = Metrics()
        hands = Hands(store).start(("one", "two"), seconds=metrics.seconds)
        hands.metrics = metrics
        metrics.watch(hands.scheduler)
        yield hands
        hands.scheduler.kill()


def samples(metrics):
    """Values by name and labels."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(one.name, *sorted(one.labels.values())): one.value for family in families for one in family.samples}


def test_a_server_that_has_done_nothing(hands):
    found = samples(hands.metrics)
    for status in STATUSES:
        assert found["kandinsky_jobs", status] == 0
    assert found["kandinsky_queue_age_seconds",] == 0
    for worker in ("one", "two"):
        assert found["kandinsky_worker_ready", worker] == 0
        assert found["kandinsky_gpu_memory_bytes", worker] == 0
        assert found["kandinsky_worker_ends_total", worker] == 0
    assert not any(name.startswith("kandinsky_stage_seconds") for name, *_ in found)


def test_jobs_stages_memory_and_ends(hands):
    ids = [hands.store.create([ASKED], owner="a secret owner")[0].id for _ in range(3)]
    hands.store.clock = lambda: 130.0
    one = next(worker for worker in hands.workers if worker.name == "one")
    one.report(one, Ready(1, memory=5))
    until(lambda: one.got)
    found = samples(hands.metrics)
    assert (found["kandinsky_jobs", "in_progress"], found["kandinsky_jobs", "queued"]) == (1, 2)
    assert found["kandinsky_queue_age_seconds",] == 30
    assert (found["kandinsky_worker_ready", "one"], found["kandinsky_gpu_memory_bytes", "one"]) == (1, 5)
    one.report(one, Done(ids[0], {"sample": 2.0, "decode": 0.25}, memory=7, content=b"x"))
    until(lambda: hands.store.counts()["completed"] == 1)
    one.die()
    until(lambda: hands.scheduler.hands["one"].all_ends == 1)
    found = samples(hands.metrics)
    assert (found["kandinsky_stage_seconds_count", "sample"], found["kandinsky_stage_seconds_sum", "sample"]) == (
        1,
        2.0,
    )
    assert found["kandinsky_stage_seconds_bucket", "0.25", "decode"] == 1
    assert found["kandinsky_worker_ends_total", "one"] == 1
    assert found["kandinsky_worker_ready", "one"] == 0
    text = hands.metrics.text().decode()
    assert ASKED.text not in text and "secret" not in text and ids[0] not in text


def test_a_clock_that_was_set_back_makes_no_negative_age(hands):
    hands.store.create([ASKED], owner="me")
    hands.store.clock = lambda: 1.0
    assert samples(hands.metrics)["kandinsky_queue_age_seconds",] == 0


def test_servers_in_one_process_do_not_share_numbers(hands):
    other = Metrics()
    other.seconds("sample", 1.0)
    assert not any(name.startswith("kandinsky_stage_seconds") for name, *_ in samples(hands.metrics))
