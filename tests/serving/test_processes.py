"""Which GPUs each worker sees."""

import pytest

from kandinsky.serving.processes import places
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
