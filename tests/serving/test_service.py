"""What the routes share: keys, limits, and what of a post stands in the log."""

import json

from helpers import SMALL
from serving_kit import client_of, posted, served, until

from kandinsky.serving.keys import add_key, read_keys
from kandinsky.serving.options import Options


def test_limits(hands):
    options = Options(model_set=SMALL, max_queue=2, max_jobs_of_key=100, max_seconds=3)
    with served(hands.scheduler, options) as address, client_of(address) as client:
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
    with served(hands.scheduler, options) as address, client_of(address) as client:
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


def test_prompts_are_logged_only_if_asked(hands):
    lines = []

    def log(event, **facts):
        lines.append(json.dumps({"event": event, **facts}))

    for wanted in (False, True):
        options = Options(model_set=SMALL, log_prompts=wanted)
        with served(hands.scheduler, options, log) as address, client_of(address) as client:
            posted(client, prompt="a secret")
        assert any("job posted" in line for line in lines)
        assert any("a secret" in line for line in lines) is wanted


def test_a_key_of_a_repeated_post_is_its_owners(hands, tmp_path):
    """What another client has used as its key tells nobody of its job."""
    mine, yours = (add_key(tmp_path / "keys", name) for name in ("me", "you"))
    options = Options(model_set=SMALL, keys=read_keys(tmp_path / "keys"))
    with served(hands.scheduler, options) as address, client_of(address) as client:
        ids = [
            client.post(
                "/v1/videos", json={"prompt": "a"},
                headers={"Authorization": f"bearer {key}", "Idempotency-Key": "same"},
            ).json()["id"]
            for key in (mine, yours, mine)
        ]  # fmt: skip
    assert ids[0] == ids[2] != ids[1]


def test_a_wrong_key_is_told_before_the_body_is_read(hands, tmp_path):
    add_key(tmp_path / "keys", "me")
    options = Options(model_set=SMALL, keys=read_keys(tmp_path / "keys"))
    with served(hands.scheduler, options) as address, client_of(address) as client:
        for path in ("/v1/videos", "/v1/images/generations", "/v1/videos/edits", "/v1/videos/x/remix"):
            answer = client.post(path, content=b"{", headers={"content-type": "application/json"})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
        for value in (b"", b"Bearer", b"Bearer \xff\xfe", b"Bearer a b", b"Bearer " + b"k" * 50_000):
            assert client.get("/v1/models", headers={"Authorization": value}).status_code == 401
        assert client.get("/health").status_code == 200


def test_a_clock_that_is_set_back_changes_no_order_and_no_place(hands, monkeypatch):
    times = iter(range(1000, 0, -10))
    monkeypatch.setattr(hands.store, "clock", lambda: float(next(times)))
    with served(hands.scheduler) as address, client_of(address) as client:
        ids = [posted(client)["id"] for _ in range(4)]
        until(lambda: hands.workers[0].got)
        assert hands.workers[0].got[0].job_id == ids[0]
        assert [client.get(f"/v1/videos/{one}").json()["queue_place"] for one in ids] == [None, 0, 1, 2]
        assert [one["id"] for one in client.get("/v1/videos").json()["data"]] == ids[::-1]
        for count in range(1, 5):
            until(lambda count=count: len(hands.workers[0].got) == count)
            hands.workers[0].finish()
        until(lambda: hands.store.counts()["completed"] == 4)
        assert [order.job_id for order in hands.workers[0].got] == ids


def test_the_same_words_to_another_route_are_another_order():
    """So an edit and an extension of one video, or a video and an image, never share a job."""
    from dataclasses import replace

    from serving_kit import ASKED

    from kandinsky.serving.service import _digest

    body = {"prompt": "a", "files": {"video": "0" * 64}}
    orders = (ASKED, replace(ASKED, time_length=0), replace(ASKED, overlap=1), replace(ASKED, strength=0.5))
    assert len({_digest(one, body) for one in orders}) == 4
    assert _digest(ASKED, body) == _digest(replace(ASKED, seed=9), dict(reversed(body.items())))
