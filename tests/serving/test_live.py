"""What happens now: per cent, wake-up calls, and who wants pictures."""

import asyncio
import signal
import threading

from helpers import LONG

from kandinsky.serving.live import Live, Now


def test_per_cent_only_grow_from_stage_to_stage():
    way = [
        Now(),
        *(Now(stage="sample", step=step, total=4) for step in range(5)),
        Now(stage="decode"),
        Now(stage="write"),
    ]
    percents = [now.percent for now in way]
    assert percents == sorted(percents)
    assert (percents[0], percents[1], percents[-1]) == (1, 5, 97)
    assert Now(stage="queued").percent == 0
    assert Now(stage="sample").percent == 5  # no step is known yet


def test_where_a_job_is_until_its_end():
    live = Live(lambda *_: None)
    assert live.now("a") is None
    live.set("a", Now(step=2))
    live.set("b", Now(step=3))
    live.end("a")
    live.end("a")
    assert (live.now("a"), live.now("b")) == (None, Now(step=3))


def test_a_call_from_another_thread_wakes_who_follows_and_nobody_else():
    live = Live(lambda *_: None)

    async def run():
        async with live.follow("a") as one, live.follow("a") as two, live.follow("b") as other:
            threading.Timer(0.02, live.set, ("a", Now())).start()
            assert await asyncio.gather(one.wait(LONG), two.wait(LONG), other.wait(0.1)) == [True, True, False]
            live.end("a")  # one that comes before it is waited for is not lost
            await asyncio.sleep(0)
            assert await one.wait(LONG)
            assert not await one.wait(0.01)
            live.call_all()
            assert await other.wait(LONG)
            live.close()
            assert await other.wait(LONG)

    asyncio.run(run())
    assert live.closed


def test_one_that_has_gone_is_forgotten_and_not_called():
    live = Live(lambda *_: None)
    kept = []

    async def run():
        async with live.follow("a") as follower:
            kept.append(follower)

    asyncio.run(run())
    live.set("a", Now())
    kept[0].call()  # its loop has ended
    assert live._followers == {}


def test_pictures_are_wanted_from_the_first_that_looks_to_the_last():
    told = []
    live = Live(lambda job_id, wanted: told.append((job_id, wanted)))

    async def run():
        async with live.follow("a"):
            assert told == []
            assert not live.is_watched("a")
            async with live.follow("a", pictures=True):
                async with live.follow("a", pictures=True):
                    assert told == [("a", True)]
                assert live.is_watched("a")
                assert told == [("a", True)]
            assert not live.is_watched("a")

    asyncio.run(run())
    assert told == [("a", True), ("a", False)]


def test_a_signal_in_the_middle_of_anything_does_not_wait_for_itself():
    """The second Ctrl-C closes from a handler, which may interrupt the very thread that holds the lock."""
    live = Live(lambda *_: None)
    before = signal.signal(signal.SIGUSR1, lambda *_: live.close())
    try:
        with live._lock:
            signal.raise_signal(signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert live.closed
