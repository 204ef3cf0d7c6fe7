"""What happens to a job, as a client that follows it sees it."""

import asyncio
import json
import threading

import pytest
from helpers import LONG, SMALL
from serving_kit import ASKED, posted, until

from kandinsky.serving import events as events_module
from kandinsky.serving.events import event
from kandinsky.serving.messages import Failed, Stage, Step
from kandinsky.serving.options import Options
from kandinsky.serving.service import Service


def test_an_event_is_one_line_of_data():
    """A prompt with line ends, of any kind, must not begin an event of its own."""
    text = event("progress", {"prompt": "a\n\nevent: completed\ndata: {}\r\n\u2028\x85b"})
    assert text.count("\n") == 3
    assert "\r" not in text
    name, data, *rest = text.split("\n")
    assert (name, rest) == ("event: progress", ["", ""])
    assert json.loads(data.removeprefix("data: "))["prompt"].endswith("\u2028\x85b")


def read_events(client, path, until_name, found=None):
    """(name, value) of each event up to one of that name; `found` has them as they come."""
    found = [] if found is None else found
    with client.stream("GET", path) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                if name == until_name:
                    return found
    return found


class Following:
    """A client on a thread; `seen` are its events."""

    def __init__(self, client, path):
        self.seen = []
        self.thread = threading.Thread(target=read_events, args=(client, path, None, self.seen), daemon=True)
        self.thread.start()

    def last(self, name, key):
        """Of the last event of a name."""
        return next((value[key] for seen, value in reversed(self.seen) if seen == name), None)

    def names(self):
        self.thread.join(LONG)
        assert not self.thread.is_alive()
        return [name for name, _ in self.seen]


def test_events(client, hands):
    first, second = posted(client), posted(client)
    worker = hands.workers[0]
    until(lambda: worker.got)
    ((_, place),) = read_events(client, f"/v1/videos/{second['id']}/events", "queued")
    assert place["queue_place"] == 0
    following = Following(client, f"/v1/videos/{first['id']}/events")
    until(lambda: hands.scheduler.live.is_watched(first["id"]))
    for step, percent in ((1, 45), (2, 85)):
        worker.report(worker, Step(first["id"], step, 2, b"jpeg"))
        until(lambda step=step: following.last("preview", "step") == step)
        until(lambda percent=percent: following.last("progress", "progress") == percent)
    worker.finish()
    assert following.names()[-1] == "completed"
    assert [value["step"] for name, value in following.seen if name == "preview"] == [1, 2]
    assert following.last("progress", "progress") == 85
    until(lambda: not hands.scheduler.live.is_watched(first["id"]))  # the stream ends after its last event


def test_a_follower_that_goes_away(client, hands):
    stays, stops = posted(client), posted(client)
    worker = hands.workers[0]
    until(lambda: worker.got)
    read_events(client, f"/v1/videos/{stays['id']}/events", "progress")
    read_events(client, f"/v1/videos/{stops['id']}/events?cancel_on_disconnect=true", "queued")
    ended = until(lambda: (v := client.get(f"/v1/videos/{stops['id']}").json())["status"] == "failed" and v)
    assert ended["error"]["code"] == "cancelled"
    assert client.get(f"/v1/videos/{stays['id']}").json()["status"] == "in_progress"


def follow(client, hands, job_id, query=""):
    found = Following(client, f"/v1/videos/{job_id}/events{query}")
    until(lambda: job_id in hands.scheduler.live._followers)
    return found


def test_the_order_of_a_jobs_life(client, hands):
    first, second = posted(client)["id"], posted(client)["id"]
    worker = hands.workers[0]
    until(lambda: worker.got)
    following = follow(client, hands, second)
    worker.finish()
    until(lambda: len(worker.got) == 2)
    for message, stage in (
        (Step(second, 1, 2), "sample"),
        (Stage(second, "decode"), "decode"),
        (Stage(second, "write"), "write"),
    ):
        worker.report(worker, message)
        until(lambda stage=stage: following.last("progress", "stage") == stage)
    worker.finish()
    names = following.names()
    assert names[0] == "queued"
    assert names[-1] == "completed"
    assert set(names[1:-1]) == {"progress"}
    percents = [value["progress"] for _, value in following.seen]
    assert percents == sorted(percents)
    assert following.last("progress", "stage") == "write"
    assert first not in str(following.seen)


@pytest.mark.parametrize("how", ["failed", "cancelled", "deleted", "closing"])
def test_every_end_is_told_and_the_stream_ends(client, hands, how):
    job_id = posted(client)["id"]
    worker = hands.workers[0]
    until(lambda: worker.got)
    following = follow(client, hands, job_id)
    if how == "failed":
        worker.report(worker, Failed(job_id, "out_of_memory", "no room"))
    elif how == "closing":
        hands.scheduler.live.close()
    else:
        client.request(
            *{"cancelled": ("POST", f"/v1/videos/{job_id}/cancel"), "deleted": ("DELETE", f"/v1/videos/{job_id}")}[how]
        )
    assert following.names()[-1] == ("failed" if how == "cancelled" else how)
    last = following.seen[-1][1]
    code = {"failed": "out_of_memory", "cancelled": "cancelled"}.get(how)
    assert (last.get("error") or {}).get("code") == code
    assert job_id not in hands.scheduler.live._followers


def test_one_that_has_ended_is_told_at_once(client, hands):
    job_id = posted(client)["id"]
    until(lambda: hands.workers[0].got)
    hands.workers[0].finish()
    until(lambda: client.get(f"/v1/videos/{job_id}").json()["status"] == "completed")
    assert [name for name, _ in read_events(client, f"/v1/videos/{job_id}/events?cancel_on_disconnect=true", None)] == [
        "completed"
    ]
    assert client.get(f"/v1/videos/{job_id}").json()["status"] == "completed"


def test_without_previews_none_is_made(client, hands):
    job_id = posted(client)["id"]
    worker = hands.workers[0]
    until(lambda: worker.got)
    following = follow(client, hands, job_id, "?preview=false")
    assert not hands.scheduler.live.is_watched(job_id)
    worker.report(worker, Step(job_id, 1, 2, b"jpeg"))
    until(lambda: following.last("progress", "step") == 1)
    worker.finish()
    assert "preview" not in following.names()


def test_a_job_that_ends_while_it_is_looked_at_goes_back_in_nothing(hands):
    """Its end is noted in the store, then nothing is known any more of where it is: in between it is not at 0 %."""
    (job,) = hands.store.create([ASKED], owner="me")
    hands.scheduler.wake()
    until(lambda: hands.workers[0].got)
    shown = Service(hands.scheduler, Options(model_set=SMALL), log=lambda *_, **__: None).show

    def show(job):
        hands.workers[0].finish()
        until(lambda: hands.scheduler.live.now(job.id) is None)
        return shown(job)

    async def told():
        found = events_module.events(hands.scheduler, job.id, show, cancel_when_gone=False, pictures=False)
        return [one async for one in found]

    (one,) = asyncio.run(told())
    assert one.startswith("event: completed\n")
    assert '"progress":100' in one


def test_silence_has_a_comment_and_a_slow_step_is_not_an_end(client, hands, monkeypatch):
    monkeypatch.setattr(events_module, "PATIENCE", 0.05)
    job_id = posted(client)["id"]
    until(lambda: hands.workers[0].got)
    lines = []
    with client.stream("GET", f"/v1/videos/{job_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        assert stream.headers["cache-control"] == "no-store"
        for line in stream.iter_lines():
            lines.append(line)
            if lines.count(": still here") == 2:
                break
    assert client.get(f"/v1/videos/{job_id}").json()["status"] == "in_progress"
