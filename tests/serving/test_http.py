"""The videos protocol by plain HTTP and by the openai client, before workers that do what the test says.

What a real pipeline makes is in test_maker.py and test_faults.py.
"""

import json
import threading
import time
from pathlib import Path

import httpx
import openai
import pytest
from helpers import SMALL
from serving_kit import Hands, posted, served, until

from kandinsky.request import MAX_SEED
from kandinsky.serving.keys import add_key, read_keys
from kandinsky.serving.messages import Failed, Step
from kandinsky.serving.options import MODEL, Options
from kandinsky.serving.store import Store

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


@pytest.fixture
def hands(tmp_path):
    with Store(tmp_path / "data") as store:
        hands = Hands(store).start()
        hands.workers[0].ready()
        until(lambda: hands.scheduler.is_ready)
        yield hands
        hands.scheduler.kill()


@pytest.fixture
def address(hands):
    with served(hands.scheduler) as address:
        yield address


@pytest.fixture
def client(address):
    with httpx.Client(base_url=address, timeout=20) as client:
        yield client


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


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({}, "prompt", "prompt is missing"),
        ({"prompt": " "}, "prompt", "empty"),
        ({"prompt": "a", "text": "b"}, "prompt", "two names"),
        ({"prompt": 7}, "prompt", "allowed is a text"),
        ({"prompt": "a" * 4001}, "prompt", "4001 characters"),
        ({"prompt": "a", "model": "sora-2"}, "model", MODEL),
        ({"prompt": "a", "seconds": 0}, "seconds", "allowed is 1 to 63"),
        ({"prompt": "a", "seconds": "64"}, "seconds", "allowed is 1 to 63"),
        ({"prompt": "a", "seconds": 1.5}, "seconds", "whole number"),
        ({"prompt": "a", "seconds": True}, "seconds", "whole number"),
        ({"prompt": "a", "size": "65x64"}, "size", "64x64, 96x64"),
        ({"prompt": "a", "size": "64"}, "size", "64x64, 96x64"),
        ({"prompt": "a", "seed": -1}, "seed", "allowed is 0"),
        ({"prompt": "a", "seed": MAX_SEED + 1}, "seed", "allowed is 0"),
        ({"prompt": "a", "format": "../../x"}, "format", "allowed"),
        ({"prompt": "a", "codec": "vp9", "format": "mp4"}, "codec", "allowed are"),
        ({"prompt": "a", "crf": 99}, "crf", "crf=99"),
        ({"prompt": "a", "fps": 0}, "fps", "fps=0"),
        ({"prompt": "a", "metadata": "perhaps"}, "metadata", "true and false"),
        ({"prompt": "a", "precision": "fast"}, "precision", "'exact'"),
        ({"prompt": "a", "Seed": 1}, "Seed", "unknown field 'Seed'"),
    ],
)
def test_wrong_field(client, hands, body, param, said):
    answer = client.post("/v1/videos", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["type"]) == (400, param, "invalid_request_error")
    assert said in error["message"]
    assert hands.store.counts()["queued"] == 0


def test_wrong_bodies(client):
    for settings, status, code in (
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "invalid_json"),
        ({"json": ["prompt"]}, 400, "invalid_json"),
        ({"content": b"prompt", "headers": {"content-type": "text/plain"}}, 415, "unsupported_media_type"),
        ({"files": [("prompt", (None, "a")), ("prompt", (None, "b"))]}, 400, "invalid_value"),
        ({"json": {"prompt": "a" * 2**25}}, 413, "body_too_large"),
        (
            {"content": (b" " * 2**20 for _ in range(20)), "headers": {"content-type": "application/json"}},
            413,
            "body_too_large",
        ),
    ):
        answer = client.post("/v1/videos", **settings)
        assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_form_and_json_are_the_same(client, hands):
    fields = {"text": "a cat", "seconds": "1", "size": "96x64", "seed": "5", "crf": "9", "metadata": "false"}
    form = client.post("/v1/videos", files=[(name, (None, value)) for name, value in fields.items()]).json()
    plain = client.post("/v1/videos", data=fields).json()
    typed = client.post("/v1/videos", json={**fields, "seconds": 1, "seed": 5, "crf": 9, "metadata": False}).json()
    assert hands.store.get(form["id"]).asked == hands.store.get(typed["id"]).asked == hands.store.get(plain["id"]).asked


def test_unknown_parameters_and_routes(client):
    video = posted(client)
    for method, path, status in (
        ("GET", "/v1/videos?page=2", 400),
        ("GET", "/v1/videos?limit=0", 400),
        ("GET", "/v1/videos?limit=many", 400),
        ("GET", "/v1/videos?after=video_nobody", 404),
        ("GET", f"/v1/videos/{video['id']}/content?variant=poster", 400),
        ("GET", "/v1/videos/..%2F..%2Fjobs.db/content", 404),
        ("GET", "/v1/nothing", 404),
        ("PUT", "/v1/videos", 405),
    ):
        answer = client.request(method, path)
        assert answer.status_code == status, path
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


def test_a_repeated_post(client):
    key = {"Idempotency-Key": "one"}
    body = {"prompt": "a cat", "seconds": 1}
    one, two = (client.post("/v1/videos", json=body, headers=key).json() for _ in range(2))
    assert one["id"] == two["id"]
    other = client.post("/v1/videos", json={**body, "seed": 1}, headers=key)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    assert client.post("/v1/videos", json=body, headers={"Idempotency-Key": "k" * 300}).status_code == 400


def test_limits(hands):
    options = Options(model_set=SMALL, max_queue=2, max_jobs_of_key=100, max_seconds=3)
    with served(hands.scheduler, options) as address, httpx.Client(base_url=address) as client:
        posted(client)
        until(lambda: hands.workers[0].got)
        posted(client), posted(client)
        full = client.post("/v1/videos", json={"prompt": "a"})
        assert (full.status_code, full.json()["error"]["code"]) == (429, "queue_full")
        assert int(full.headers["retry-after"]) > 0
        long = client.post("/v1/videos", json={"prompt": "a", "seconds": 4})
        assert "allowed is 1 to 3" in long.json()["error"]["message"]


def test_keys(hands, tmp_path):
    mine, yours = (add_key(tmp_path / "keys", name) for name in ("me", "you"))
    options = Options(model_set=SMALL, keys=read_keys(tmp_path / "keys"), max_jobs_of_key=1)
    with served(hands.scheduler, options) as address, httpx.Client(base_url=address) as client:
        for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {mine}"}):
            answer = client.get("/v1/videos", headers=headers)
            assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        me, you = ({"Authorization": f"Bearer {key}"} for key in (mine, yours))
        video = client.post("/v1/videos", json={"prompt": "a"}, headers=me).json()
        too_many = client.post("/v1/videos", json={"prompt": "a"}, headers=me)
        assert too_many.status_code == 429
        path = f"/v1/videos/{video['id']}"
        assert client.get(path, headers=me).status_code == 200
        for method, where in (
            ("GET", path), ("DELETE", path), ("POST", f"{path}/cancel"), ("GET", f"{path}/content"),
            ("GET", f"{path}/events"), ("GET", f"/v1/videos?after={video['id']}"),
        ):  # fmt: skip
            assert client.request(method, where, headers=you).status_code == 404
        assert client.get("/v1/videos", headers=you).json()["data"] == []


def test_strangers_names_and_pages(address, client):
    for host, allowed in (("localhost:1", True), ("[::1]:1", True), ("10.0.0.1", True), ("evil.example", False)):
        answer = client.get("/health", headers={"Host": host})
        assert (answer.status_code == 200) is allowed
    for origin, allowed in ((address, True), ("http://evil.example", False), ("null", False)):
        answer = client.post("/v1/videos", data={"prompt": "a"}, headers={"Origin": origin})
        assert (answer.status_code == 200) is allowed


def test_cancel_and_delete(client, hands):
    runs, waits = posted(client), posted(client)
    until(lambda: hands.workers[0].got)
    for video in (waits, runs):
        client.post(f"/v1/videos/{video['id']}/cancel")
        ended = until(lambda one=video["id"]: (v := client.get(f"/v1/videos/{one}").json())["status"] == "failed" and v)
        assert ended["error"]["code"] == "cancelled"
    again = posted(client)
    until(lambda: len(hands.workers[0].got) == 2)
    assert client.delete(f"/v1/videos/{again['id']}").json()["deleted"]
    until(lambda: again["id"] in hands.workers[0].cancels)


def read_events(client, path, until_name):
    """(name, value) of each event up to one of that name."""
    found = []
    with client.stream("GET", path) as stream:
        for line in stream.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: "):
                found.append((name, json.loads(line.removeprefix("data: "))))
                if name == until_name:
                    return found
    return found


def test_events(client, hands):
    first, second = posted(client), posted(client)
    worker = hands.workers[0]
    until(lambda: worker.got)
    ((_, place),) = read_events(client, f"/v1/videos/{second['id']}/events", "queued")
    assert place["queue_place"] == 0
    threads = []

    def follow():
        threads.append(read_events(client, f"/v1/videos/{first['id']}/events", "completed"))

    thread = threading.Thread(target=follow)
    thread.start()
    until(lambda: hands.scheduler.live.is_watched(first["id"]))
    for step in (1, 2):
        worker.report(worker, Step(first["id"], step, 2, b"jpeg"))
        until(lambda step=step: hands.scheduler.live.now(first["id"]).step == step)
        time.sleep(0.2)
    worker.finish()
    thread.join(20)
    (seen,) = threads
    assert [value["step"] for name, value in seen if name == "preview"] == [1, 2]
    assert seen[-1][0] == "completed"
    assert [value["progress"] for name, value in seen if name == "progress"][-1] == 85
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


def test_an_image_that_fails(hands, client):
    def fail():
        order = until(lambda: hands.workers[0].got)[0]
        hands.workers[0].report(hands.workers[0], Failed(order.job_id, "out_of_memory", "no room"))

    threading.Thread(target=fail).start()
    answer = client.post("/v1/images/generations", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "out_of_memory")


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
    assert client.get("/v1/models").json()["data"][0]["sizes"] == ["64x64", "96x64"]
    routes = client.get("/openapi.json").json()["paths"]
    assert "additionalProperties" in json.dumps(routes["/v1/videos"]["post"])
    for name in ("/docs", "/docs.js", "/page.js", "/page.css"):
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


def test_prompts_are_logged_only_if_asked(hands):
    lines = []

    def log(event, **facts):
        lines.append(json.dumps({"event": event, **facts}))

    for wanted in (False, True):
        options = Options(model_set=SMALL, log_prompts=wanted)
        with served(hands.scheduler, options, log) as address, httpx.Client(base_url=address) as client:
            posted(client, prompt="a secret")
        assert any("job posted" in line for line in lines)
        assert any("a secret" in line for line in lines) is wanted


def test_files_of_the_page_are_there():
    from kandinsky.serving import page

    assert all((page.FOLDER / name).is_file() for name, _ in page.FILES.values())
    assert Path(page.FOLDER).is_dir()
