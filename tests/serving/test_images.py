"""Images: jobs whose answer waits for them."""

import socket
import threading

import pytest
from helpers import LONG, SMALL
from serving_kit import client_of, posted, served, until

from kandinsky.serving.messages import Failed
from kandinsky.serving.options import Options

BODY = {"prompt": "a", "size": "64x64"}


def ask(client, body=BODY, **settings):
    """The answer, and the thread that waits for it."""
    found = []
    thread = threading.Thread(
        target=lambda: found.append(client.post("/v1/images/generations", json=body, **settings)), daemon=True
    )
    thread.start()
    return found, thread


def test_an_image_is_a_job_that_is_in_no_list_of_videos(client, hands):
    found, thread = ask(client, {**BODY, "seed": 7, "output_format": "jpeg"})
    order = until(lambda: hands.workers[0].got)[0]
    assert (order.asked.time_length, order.asked.file_name, order.asked.seed) == (0, "image.jpeg", 7)
    assert client.get("/v1/videos").json()["data"] == []
    hands.workers[0].finish(content=b"\xff\xd8")
    thread.join(LONG)
    assert found[0].json()["data"] == [{"b64_json": "/9g=", "seed": 7}]
    assert found[0].json()["output_format"] == "jpeg"
    assert hands.store.get(order.job_id).downloaded


@pytest.mark.parametrize("key", [None, "one"])
def test_a_client_that_goes_away(client, hands, key):
    """Nobody waits for the images then; with a key the client may come again for them."""
    headers = {} if key is None else {"Idempotency-Key": key}
    with socket.create_connection((client.base_url.host, client.base_url.port)) as goes:
        request = client.build_request("POST", "/v1/images/generations", json=BODY, headers=headers)
        head = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        goes.sendall(f"POST {request.url.path} HTTP/1.1\r\n{head}\r\n".encode() + request.read())
        job_id = until(lambda: hands.workers[0].got)[0].job_id
    if key is None:
        until(lambda: hands.store.get(job_id).status == "cancelled")
        return
    found, thread = ask(client, headers=headers)
    hands.workers[0].finish(content=b"image")
    thread.join(LONG)
    assert found[0].status_code == 200
    assert len(hands.workers[0].got) == 1


def test_one_that_fails_takes_the_others_with_it(client, hands):
    found, thread = ask(client, {**BODY, "n": 3})
    order = until(lambda: hands.workers[0].got)[0]
    hands.workers[0].report(hands.workers[0], Failed(order.job_id, "generation_failed", "no"))
    thread.join(LONG)
    assert (found[0].status_code, found[0].json()["error"]["code"]) == (500, "generation_failed")
    until(lambda: hands.store.counts()["cancelled"] == 2)


@pytest.mark.parametrize(("how", "code"), [("cancel", "cancelled"), ("delete", "cancelled"), ("end", "draining")])
def test_a_wait_that_ends_otherwise(client, hands, how, code):
    found, thread = ask(client)
    job_id = until(lambda: hands.workers[0].got)[0].job_id
    if how == "cancel":
        client.post(f"/v1/videos/{job_id}/cancel")
    elif how == "delete":
        client.delete(f"/v1/videos/{job_id}")
    else:
        hands.scheduler.live.close()
    thread.join(LONG)
    assert found[0].json()["error"]["code"] == code
    assert found[0].status_code == (503 if how == "end" else 500)


def test_all_or_none_are_taken(hands):
    with (
        served(hands.scheduler, Options(model_set=SMALL, max_queue=3)) as address,
        client_of(address) as client,
    ):
        posted(client)
        until(lambda: hands.workers[0].got)
        answer = client.post("/v1/images/generations", json={**BODY, "n": 4})
        assert (answer.status_code, answer.json()["error"]["code"]) == (429, "queue_full")
        assert hands.store.counts()["queued"] == 0


def test_a_key_is_for_one_image(client, hands):
    answer = client.post("/v1/images/generations", json={**BODY, "n": 2}, headers={"Idempotency-Key": "k"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert sum(hands.store.counts().values()) == 0


def test_an_image_that_fails(hands, client):
    def fail():
        order = until(lambda: hands.workers[0].got)[0]
        hands.workers[0].report(hands.workers[0], Failed(order.job_id, "out_of_memory", "no room"))

    threading.Thread(target=fail).start()
    answer = client.post("/v1/images/generations", json={"prompt": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "out_of_memory")


def test_images_that_nobody_waits_for_are_jobs_of_a_list_of_their_own(client, hands):
    answer = client.post("/v1/images/generations", json={**BODY, "n": 2, "seed": 7, "background": True}).json()
    assert [(job["object"], job["seed"], job["format"]) for job in answer["data"]] == [
        ("image", 7, "png"),
        ("image", 8, "png"),
    ]
    ids = [job["id"] for job in answer["data"]]
    video = posted(client)["id"]
    listed = {
        kind: [job["id"] for job in client.get(f"/v1/videos?kind={kind}").json()["data"]]
        for kind in ("video", "image", "all")
    }
    assert listed == {"video": [video], "image": ids[::-1], "all": [video, *ids[::-1]]}
    until(lambda: hands.workers[0].got)
    hands.workers[0].finish(content=b"image")
    until(lambda: client.get(f"/v1/videos/{ids[0]}").json()["status"] == "completed")
    content = client.get(f"/v1/videos/{ids[0]}/content")
    assert (content.content, content.headers["content-type"]) == (b"image", "image/png")
    answer = client.post("/v1/images/generations", json={**BODY, "background": "soon"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "background")
