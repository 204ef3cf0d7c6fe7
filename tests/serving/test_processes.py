"""Which GPUs each worker sees, and what its processes say."""

import pytest
from helpers import fork_server
from serving_kit import until
from serving_process import refusing_worker

from kandinsky.serving import processes
from kandinsky.serving.messages import Gone, Refused
from kandinsky.serving.processes import LocalWorker, places
from kandinsky.serving.worker import Place

PLACE = Place(weights="weights", device="cuda")


def seen(place, workers):
    return [one.variables.get("CUDA_VISIBLE_DEVICES") for one in places(place, workers)]


def test_each_worker_sees_its_own_gpus(monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seen(PLACE, 3) == ["0", "1", "2"]
    assert seen(Place(weights="w", device="cuda", processes=2), 2) == ["0,1", "2,3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-x")
    assert seen(PLACE, 2) == ["4", "GPU-x"]
    with pytest.raises(ValueError, match="names 2"):
        places(PLACE, 3)


def test_one_worker_or_none_with_gpus_is_left_alone():
    assert seen(PLACE, 1) == [None]
    assert seen(Place(weights="w", device="cuda:1"), 1) == [None]
    assert seen(Place(weights="w", device="cpu"), 2) == [None, None]
    with pytest.raises(ValueError, match="'cuda' and 'cpu'"):
        places(Place(weights="w", device="cuda:1"), 2)


@pytest.mark.slow
def test_each_process_of_a_group_is_heard_and_ends_the_others(monkeypatch):
    monkeypatch.setattr(processes, "END", 0.1)
    said = []
    place = Place(weights="w", device="cpu", processes=2)
    LocalWorker(
        "w", lambda _, message: said.append(message), place=place, context=fork_server(), target=refusing_worker
    )
    until(lambda: said and isinstance(said[-1], Gone))
    assert said == [Refused("ValueError: no such device", argument=True), Gone("exit code -9, 0")]
