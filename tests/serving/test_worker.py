"""A worker of several processes, which make each video together (on the CPU, over gloo)."""

import shutil

import pytest
from helpers import LONG
from serving_kit import ASKED, until

from kandinsky.serving.processes import LocalWorker
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.store import Store
from kandinsky.serving.worker import Place


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", ["sequence", "tensor"])
def test_a_group_makes_cancels_shows_and_finishes(tmp_path, small_weights, parallelism):
    place = Place(weights=str(small_weights), device="cpu", parallelism=parallelism, processes=2)
    with Store(tmp_path) as store:
        seen = []
        scheduler = Scheduler(
            store,
            {"w": lambda name, report: LocalWorker(name, report, place=place)},
            log=lambda event, **facts: seen.append((event, facts)),
        )
        first, stops, again = (store.create([ASKED], owner="me")[0].id for _ in range(3))
        scheduler.live._watching[stops] = 1
        pictures, step = [], scheduler._on_step
        scheduler._on_step = lambda message: (pictures.append((message.job_id, message.picture)), step(message))
        scheduler.start()
        until(lambda: not store.get(first).is_open)
        assert store.get(first).status == "completed"
        picture = until(lambda: dict(pictures).get(stops))
        assert picture.startswith(b"\xff\xd8")
        scheduler.stop(stops)
        until(lambda: not store.get(stops).is_open)
        assert store.get(stops).status in ("cancelled", "completed")  # its last step may have been done
        until(lambda: not store.get(again).is_open)
        files = [store.file_of(store.get(one)).read_bytes() for one in (first, again)]
        assert files[0] == files[1]
        assert scheduler.hands["w"].all_ends == 0, seen
        scheduler.drain()
        scheduler.wait_until_gone(LONG)
        assert scheduler.hands["w"].worker is None
    shutil.rmtree(tmp_path, ignore_errors=True)
