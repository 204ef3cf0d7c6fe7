"""The videos protocol by plain HTTP and by the openai client, before workers that do what the test says.

What a real pipeline makes is in test_maker.py and test_faults.py.
"""

import errno
import json
import threading
from pathlib import Path

import openai
import pytest
from serving_kit import posted, until

from kandinsky.request import MAX_SEED
from kandinsky.serving import uploads
from kandinsky.serving.checker import Checker
from kandinsky.serving.messages import Failed
from kandinsky.serving.options import MODEL
from kandinsky.serving.page import FILES

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def openai_client(address):
    with openai.OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as client:
        yield client


def work(hands, content=b"a video"):
    """Finish whatever comes, on a thread; returns what stops it."""
    ended = threading.Event()

    def finish():
        seen = 0
        while not ended.wait(0.01):
            if len(hands.workers[0].got) > seen:
                seen += 1
                hands.workers[0].finish(content=content)

    threading.Thread(target=finish, daemon=True).start()
    return ended


def test_the_openai_client(hands, openai_client):
    ended = work(hands)
    videos = openai_client.videos
    made = videos.create_and_poll(
        prompt="a cat", seconds="2", size="96x64", poll_interval_ms=50, extra_body={"seed": 2**62 + 1}
    )
    assert (made.status, made.progress, made.prompt, made.seconds, made.size, made.model, made.object) == (
        "completed", 100, "a cat", "2", "96x64", MODEL, "video"
    )  # fmt: skip
    assert made.error is None
    assert made.completed_at >= made.created_at
    assert made.expires_at == made.completed_at + 7 * 86400
    assert made.seed == 2**62 + 1  # type: ignore[attr-defined]  # our own field
    assert videos.download_content(made.id).read() == b"a video"
    until(lambda: hands.store.get(made.id).downloaded)  # noted when all of it was sent
    with pytest.raises(openai.InternalServerError, match="cannot be read"):  # it is not really a video
        videos.download_content(made.id, variant="thumbnail")
    ids = [made.id] + [videos.create(prompt=str(number)).id for number in range(4)]
    assert [video.id for video in videos.list(limit=2)] == ids[::-1]  # the client turns the pages
    assert [video.id for video in videos.list(limit=2, order="asc")] == ids
    assert [video.id for video in videos.list(after=ids[1], limit=1).data] == [ids[0]]
    assert videos.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError, match="no video"):
        videos.retrieve(made.id)
    ended.set()


def test_the_openai_client_sees_errors(hands, openai_client):
    videos = openai_client.videos
    with pytest.raises(openai.BadRequestError) as caught:
        videos.create(prompt="x", extra_body={"nonsense": 1})
    assert (caught.value.code, caught.value.param, caught.value.type) == (
        "unknown_parameter", "nonsense", "invalid_request_error"
    )  # fmt: skip
    runs = videos.create(prompt="a cat")
    with pytest.raises(openai.NotFoundError, match=r"its job is (queued|in_progress)"):
        videos.download_content(runs.id)
    until(lambda: hands.workers[0].got)
    hands.workers[0].report(hands.workers[0], Failed(runs.id, "out_of_memory", "no room"))
    failed = videos.poll(runs.id, poll_interval_ms=20)
    assert (failed.status, failed.error.code, failed.error.message) == ("failed", "out_of_memory", "no room")


def test_what_the_model_has_not(openai_client):
    for call in (
        lambda: openai_client.videos.create_character(name="x", video=b"mp4"),
        lambda: openai_client.videos.get_character("character_1"),
    ):
        with pytest.raises(openai.BadRequestError, match="not supported by this server") as caught:
            call()
        assert caught.value.code == "not_supported"


def test_images(hands, openai_client, client):
    ended = work(hands, b"an image")
    made = openai_client.images.generate(prompt="a cat", n=2, size="64x64", extra_body={"seed": 3})
    assert [image.seed for image in made.data] == [3, 4]
    assert made.data[0].b64_json == "YW4gaW1hZ2U="
    assert client.get("/v1/videos").json()["data"] == []
    for body, param in (
        ({"prompt": "a", "n": 17}, "n"),
        ({"prompt": "a", "quality": "hd"}, "quality"),
        ({"prompt": "a", "output_format": "gif"}, "output_format"),
        ({"prompt": "a", "response_format": "url"}, "response_format"),
        ({"prompt": "a", "n": 2, "seed": MAX_SEED}, "seed"),
    ):
        answer = client.post("/v1/images/generations", json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    ended.set()


def test_state(client, hands):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready", "workers": {"w": "ready"}}
    video = posted(client)
    until(lambda: hands.workers[0].got)
    hands.workers[0].finish()
    until(lambda: client.get(f"/v1/videos/{video['id']}").json()["status"] == "completed")
    text = client.get("/metrics").text
    for line in (
        'kandinsky_jobs{state="completed"} 1.0', "kandinsky_queue_age_seconds 0.0",
        'kandinsky_worker_ready{worker="w"} 1.0', 'kandinsky_gpu_memory_bytes{worker="w"} 0.0',
    ):  # fmt: skip
        assert line in text
    (model,) = client.get("/v1/models").json()["data"]
    assert (model["sizes"], model["max_extension"]) == (["64x64", "96x64"], 60)
    assert (model["max_body"], model["loras"]) == (16 * 2**20, {})
    routes = client.get("/openapi.json").json()["paths"]
    assert "additionalProperties" in json.dumps(routes["/v1/videos"]["post"])
    for name in FILES:
        page = client.get(name)
        assert page.status_code == 200
        assert "http" not in page.text.replace("http-equiv", "")  # all that it loads comes from this server
    page = client.get("/")
    assert "script-src 'self'" in page.headers["content-security-policy"]
    hands.scheduler.drain()
    until(lambda: client.get("/ready").status_code == 503)
    assert client.post("/v1/videos", json={"prompt": "a"}).json()["error"]["code"] == "draining"


def test_a_locked_store(client, hands):
    import sqlite3

    hands.store._database._writer.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(hands.store.folder / "jobs.db", isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    answer = client.post("/v1/videos", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert answer.headers["retry-after"]
    assert client.get("/v1/videos").status_code == 200
    other.execute("ROLLBACK")
    other.close()
    posted(client)


def test_a_store_that_was_moved_takes_nothing_until_it_is_back(client, hands):
    there = posted(client)["id"]
    for file in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
        (hands.store.folder / file).rename(hands.store.folder / f"moved-{file}")
    answer = client.post("/v1/videos", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert client.get(f"/v1/videos/{there}").status_code == 200
    for file in ("jobs.db", "jobs.db-wal", "jobs.db-shm"):
        (hands.store.folder / f"moved-{file}").rename(hands.store.folder / file)
    posted(client)


def test_a_file_that_cannot_be_kept_is_told_without_a_path(client, hands, monkeypatch):
    def full(_handle):
        raise OSError(errno.ENOSPC, "No space left on device", "/home/me/jobs")

    monkeypatch.setattr(uploads.os, "fsync", full)
    files = {"image": ("a.png", b"\x89PNG\r\n\x1a\n")}
    answer = client.post("/v1/videos", data={"prompt": "a"}, files=files)
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
    assert answer.json()["error"]["message"] == "the store cannot be used now: No space left on device"
    monkeypatch.undo()
    assert list(hands.store.files.iterdir()) == []


@pytest.mark.slow
def test_files_that_wait_to_be_looked_at_hold_up_nobody(client, hands, monkeypatch):
    gate, answers = threading.Event(), []

    def look(_checker, look):
        gate.wait(20)
        return look.asked

    def send():
        answer = client.post("/v1/videos", data={"prompt": "a"}, files={"image": ("a.png", b"\x89PNG\r\n\x1a\n")})
        answers.append(answer.status_code)

    monkeypatch.setattr(Checker, "check", look)
    clients = [threading.Thread(target=send) for _ in range(45)]  # more than the threads that handlers have
    for one in clients:
        one.start()
    until(lambda: len(list(hands.store.files.iterdir())) == len(clients))
    assert client.get("/v1/videos", timeout=5).status_code == 200
    gate.set()
    for one in clients:
        one.join()
    assert answers == [200] * len(clients)


def test_files_of_the_page_are_there():
    from kandinsky.serving import page

    assert all((page.FOLDER / name).is_file() for name, _ in page.FILES.values())
    assert Path(page.FOLDER).is_dir()
