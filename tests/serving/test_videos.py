"""The routes of videos: pages, repeated posts, cancelled, deleted, files, and names that are none."""

import json
import time

import httpx
import pytest
from serving_kit import posted, until


def ids_of(answer):
    return [video["id"] for video in answer.json()["data"]]


def test_pages_meet_each_job_once_though_some_are_deleted_and_some_come(client):
    ids = [posted(client)["id"] for _ in range(5)]
    first = client.get("/v1/videos?limit=2")
    assert (ids_of(first), first.json()["has_more"]) == ([ids[4], ids[3]], True)
    posted(client)
    client.delete(f"/v1/videos/{ids[2]}")
    second = client.get(f"/v1/videos?limit=2&after={first.json()['last_id']}")
    assert (ids_of(second), second.json()["has_more"]) == ([ids[1], ids[0]], False)
    assert (second.json()["first_id"], second.json()["last_id"]) == (ids[1], ids[0])
    none = client.get(f"/v1/videos?after={ids[0]}").json()
    assert none == {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}


def test_exactly_a_page_has_no_more(client):
    for _ in range(2):
        posted(client)
    assert client.get("/v1/videos?limit=2").json()["has_more"] is False
    assert client.get("/v1/videos?limit=1&order=asc").json()["has_more"] is True


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=101",
        "limit=1e2",
        "limit=",
        "limit=1&limit=2",
        "order=ASC",
        "order=",
        "kind=",
        "kind=images",
        "x=1",
        "limit=" + "9" * 5000,
    ],
)
def test_a_query_that_is_none(shared, query):
    answer = shared.get(f"/v1/videos?{query}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, query.partition("=")[0])
    assert len(answer.json()["error"]["message"]) < 500


@pytest.mark.parametrize("query", ["preview=perhaps", "cancel_on_disconnect=2", "variant=", "nothing=1"])
def test_a_wrong_query_of_a_job(shared, query):
    job_id = posted(shared)["id"]
    where = "content" if query.startswith("variant") else "events"
    assert shared.get(f"/v1/videos/{job_id}/{where}?{query}").status_code == 400
    assert shared.get(f"/v1/videos/{job_id}").json()["status"] in ("queued", "in_progress")


@pytest.mark.parametrize("method", ["get", "post", "delete"])
def test_a_parameter_that_nobody_knows_does_nothing(shared, method):
    job_id = posted(shared)["id"]
    path = f"/v1/videos/{job_id}" + ("/cancel" if method == "post" else "")
    answer = getattr(shared, method)(f"{path}?force=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "force")
    assert shared.get(f"/v1/videos/{job_id}").json()["status"] in ("queued", "in_progress")


IDS = (
    "..",
    "%2e%2e",
    "..%2f..%2fjobs.db",
    "%00",
    "%ff",
    "%ed%a0%80",
    "video_",
    "video%25",
    "*",
    "%F0%9F%90%88",
    "a" * 10_000,
    "'%20OR%201=1--",
    "video_nobody",
)


@pytest.mark.parametrize("value", ["\ud800", "\0", "video_nobody", "", 7, ["video_1"], {"id": 1}, None])
def test_an_id_in_a_body_is_looked_up_and_nothing_else(shared, value):
    body = '{"prompt": "a", "seconds": 1, "video": {"id": ' + json.dumps(value) + "}}"
    for path in ("", "/edits", "/extensions"):
        answer = shared.post(f"/v1/videos{path}", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 404, answer.text


@pytest.mark.slow
@pytest.mark.parametrize("job_id", IDS)
def test_an_id_that_is_none_is_looked_up_and_nothing_else(shared, shared_hands, job_id):
    there = posted(shared)["id"]
    for method, end in (("GET", ""), ("GET", "/content"), ("GET", "/events"), ("POST", "/cancel"), ("DELETE", "")):
        url = httpx.URL(f"{shared.base_url}").copy_with(raw_path=f"/v1/videos/{job_id}{end}".encode())
        answer = shared.request(method, url)
        assert answer.status_code in (404, 405)
        assert len(answer.json()["error"]["message"]) < 500
    assert shared.get(f"/v1/videos/{there}").status_code == 200
    assert (shared_hands.store.folder / "jobs.db").is_file()


def finished(client, hands, content=b"a video"):
    video = posted(client)
    until(lambda: hands.workers[0].got)
    hands.workers[0].finish(content=content)
    until(lambda: client.get(f"/v1/videos/{video['id']}").json()["status"] == "completed")
    return video["id"]


def test_a_file_is_the_owners_once_all_of_it_was_sent(client, hands):
    job_id = finished(client, hands, bytes(2**24))
    path = f"/v1/videos/{job_id}/content"
    part = client.get(path, headers={"Range": "bytes=0-9"})
    assert (part.status_code, len(part.content)) == (206, 10)
    with client.stream("GET", path) as stream:
        next(stream.iter_bytes())
    time.sleep(0.3)
    assert not hands.store.get(job_id).downloaded  # the client has gone away in the middle of it
    whole = client.get(path)
    assert (whole.headers["content-type"], len(whole.content)) == ("video/mp4", 2**24)
    assert until(lambda: hands.store.get(job_id).downloaded)


def test_a_file_that_is_gone(client, hands):
    job_id = finished(client, hands)
    hands.store.file_of(hands.store.get(job_id)).unlink()
    answer = client.get(f"/v1/videos/{job_id}/content")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "file_gone")


def test_what_has_ended_is_not_cancelled(client, hands):
    job_id = finished(client, hands)
    assert client.post(f"/v1/videos/{job_id}/cancel").json()["status"] == "completed"
    assert client.delete(f"/v1/videos/{job_id}").json() == {"id": job_id, "object": "video.deleted", "deleted": True}
    assert client.delete(f"/v1/videos/{job_id}").status_code == 404
    assert not hands.store.folder_of(job_id).exists()


def test_what_waits_is_cancelled_before_any_worker_has_it(client, hands):
    runs, waits, last = (posted(client)["id"] for _ in range(3))
    until(lambda: hands.workers[0].got)
    said = client.post(f"/v1/videos/{waits}/cancel").json()
    assert (said["status"], said["error"]["code"], said["queue_place"]) == ("failed", "cancelled", None)
    assert client.get(f"/v1/videos/{last}").json()["queue_place"] == 0
    hands.workers[0].finish()
    until(lambda: len(hands.workers[0].got) == 2)
    assert [order.job_id for order in hands.workers[0].got] == [runs, last]


def test_a_key_is_used_by_one_route(client):
    """The same words to another route are another order."""
    key = {"Idempotency-Key": "one"}
    client.post("/v1/videos", json={"prompt": "a"}, headers=key)
    answer = client.post("/v1/images/generations", json={"prompt": "a"}, headers=key)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "idempotency_key_reused")


@pytest.mark.parametrize("key", ["", "k" * 201])
def test_a_key_that_is_none(client, hands, key):
    answer = client.post("/v1/videos", json={"prompt": "a"}, headers={"Idempotency-Key": key})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert sum(hands.store.counts().values()) == 0


def test_a_repeated_key_gives_its_job_when_the_queue_is_full_and_after_its_end(client, hands):
    body, key = {"prompt": "a", "seconds": 1}, {"Idempotency-Key": "ключ".encode()}
    job_id = client.post("/v1/videos", json=body, headers=key).json()["id"]
    until(lambda: hands.workers[0].got)
    hands.workers[0].finish()
    until(lambda: client.get(f"/v1/videos/{job_id}").json()["status"] == "completed")
    again = client.post("/v1/videos", json=dict(reversed(body.items())), headers=key).json()
    assert (again["id"], again["status"]) == (job_id, "completed")
    client.delete(f"/v1/videos/{job_id}")
    assert client.post("/v1/videos", json=body, headers=key).json()["id"] != job_id


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
