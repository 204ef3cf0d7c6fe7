"""The protocol's objects and errors."""

import dataclasses
import json

import pytest
from serving_kit import ASKED

from kandinsky.serving.answers import Refusal, not_found, not_here, turned_away, video, wrong
from kandinsky.serving.job import Job
from kandinsky.serving.live import Now

JOB = Job(number=4, id="video_1", owner="me", status="queued", asked=ASKED, created=100.9)
PROTOCOL = {
    "id", "object", "created_at", "completed_at", "expires_at", "status", "progress", "error", "model", "prompt",
    "seconds", "size", "remixed_from_video_id",
}  # fmt: skip
OURS = {
    "seed", "format", "fps", "crf", "codec", "metadata", "queue_place", "stage", "step", "total_steps", "timings",
    "bytes", "loras", "added_seconds",
}  # fmt: skip


def body_of(refusal):
    return json.loads(refusal.response().body)["error"]


def test_a_job_that_waits():
    told = video(JOB, place=3, keep_days=7)
    assert set(told) >= PROTOCOL | OURS
    assert (told["status"], told["progress"], told["queue_place"], told["stage"]) == ("queued", 0, 3, None)
    assert (told["created_at"], told["completed_at"], told["expires_at"], told["error"]) == (100, None, None, None)
    assert (told["seconds"], told["size"], told["format"]) == ("1", "64x64", "mp4")
    assert "owner" not in told  # whose key it is, is nobody's business


def test_a_job_that_runs():
    told = video(dataclasses.replace(JOB, status="in_progress"), now=Now(stage="sample", step=1, total=4))
    assert (told["status"], told["progress"], told["stage"], told["step"]) == ("in_progress", 25, "sample", 1)
    assert video(dataclasses.replace(JOB, status="in_progress"))["progress"] == 0


def test_a_job_that_is_completed():
    done = dataclasses.replace(JOB, status="completed", finished=200.5, size=9, timings={"total": 1.5})
    told = video(done, keep_days=2)
    assert (told["progress"], told["completed_at"], told["expires_at"]) == (100, 200, 200 + 2 * 86400)
    assert (told["bytes"], told["timings"], told["error"]) == (9, {"total": 1.5}, None)
    assert video(done)["expires_at"] is None  # kept for ever


def test_what_is_needed_to_ask_for_the_same_once_more():
    longer = dataclasses.replace(ASKED, time_length=2, stitched=5, overlap=1, loras={"one": 0.5})
    told = video(dataclasses.replace(JOB, asked=longer))
    assert (told["object"], told["seconds"], told["added_seconds"], told["overlap"]) == ("video", "5", 2, 1)
    assert told["loras"] == {"one": 0.5}
    image = video(dataclasses.replace(JOB, asked=dataclasses.replace(ASKED, time_length=0, ending=".png")))
    assert (image["object"], image["format"], image["added_seconds"], image["loras"]) == ("image", "png", None, None)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_job_that_was_not_made(status):
    told = video(
        dataclasses.replace(JOB, status=status, finished=200.0, code="disk_full", reason="No space"), keep_days=1
    )
    assert (told["status"], told["completed_at"], told["expires_at"]) == ("failed", None, 200 + 86400)
    assert told["error"]["code"] == ("cancelled" if status == "cancelled" else "disk_full")
    assert told["error"]["message"]


@pytest.mark.parametrize(
    ("refusal", "status", "kind"),
    [
        (wrong("no", param="seed"), 400, "invalid_request_error"),
        (not_here("characters"), 400, "invalid_request_error"),
        (Refusal(401, "no", code="invalid_api_key"), 401, "authentication_error"),
        (Refusal(403, "no", code="wrong_origin"), 403, "permission_error"),
        (not_found("x"), 404, "invalid_request_error"),
        (turned_away("full", code="queue_full", status=429), 429, "rate_limit_error"),
        (turned_away("ends", code="draining"), 503, "server_error"),
    ],
)
def test_errors(refusal, status, kind):
    answer = refusal.response()
    assert (answer.status_code, body_of(refusal)["type"]) == (status, kind)
    assert set(body_of(refusal)) == {"message", "type", "param", "code"}
    assert ("retry-after" in answer.headers) is (status in (429, 503))


def test_what_a_client_sent_is_repeated_in_short_and_can_be_sent():
    assert len(body_of(not_found("x" * 10_000))["message"]) < 100
    said = body_of(wrong("a\ud800b", param="\udfff"))
    assert (said["message"], said["param"]) == ("a\ufffdb", "\ufffd")
    assert body_of(wrong("🐈"))["message"] == "🐈"
