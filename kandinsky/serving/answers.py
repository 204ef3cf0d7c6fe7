"""The protocol's objects and errors, as JSON."""

from typing import Any

from fastapi.responses import JSONResponse

from kandinsky.serving.job import Job
from kandinsky.serving.live import Now
from kandinsky.serving.options import MODEL
from kandinsky.serving.retention import DAY

RETRY_AFTER = 10
"""Seconds after which a client that was turned away may come again."""


class Refusal(Exception):  # noqa: N818  # it is an answer
    """An answer that is an error in the protocol's shape."""

    def __init__(
        self, status: int, message: str, *, code: str, param: str | None = None, headers: dict[str, str] | None = None
    ):
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = headers or {}

    def response(self) -> JSONResponse:
        """As it is sent."""
        kind = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}.get(
            self.status, "invalid_request_error" if self.status < 500 else "server_error"
        )
        error = {"message": _sendable(str(self)), "type": kind, "param": _sendable(self.param), "code": self.code}
        return JSONResponse({"error": error}, self.status, self.headers)


def _sendable(text: str | None) -> str | None:
    """Without halves of characters, which JSON may name and UTF-8 cannot have."""
    return None if text is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def wrong(message: str, *, param: str | None = None, code: str = "invalid_value") -> Refusal:
    """What was sent is not what it may be."""
    return Refusal(400, message, code=code, param=param)


def not_found(job_id: str) -> Refusal:
    """There is no such job, or it is somebody else's, which is not told apart."""
    return Refusal(404, f"no video {job_id[:64]!r}", code="not_found", param="video_id")


def not_here(what: str) -> Refusal:
    """The protocol has it, this server does not."""
    return wrong(f"{what} is not supported by this server", code="not_supported")


def turned_away(message: str, *, code: str, status: int = 503) -> Refusal:
    """It may work later."""
    return Refusal(status, message, code=code, headers={"Retry-After": str(RETRY_AFTER)})


def video(
    job: Job, *, now: Now | None = None, place: int | None = None, keep_days: float | None = None
) -> dict[str, Any]:
    """A job as the protocol's `video`, with fields of our own after its own. A job that makes an image is an `image`.

    Args:
        now: where it is, if it runs.
        place: how many jobs come before it, if it waits.
        keep_days: how long it stays after its end.
    """
    asked = job.asked
    ended = job.finished is not None
    percent = 100 if job.status == "completed" else now.percent if now is not None else 0
    return {
        "id": job.id,
        "object": asked.kind,
        "created_at": int(job.created),
        "completed_at": int(job.finished or 0) if job.status == "completed" else None,
        "expires_at": int((job.finished or 0) + keep_days * DAY) if ended and keep_days is not None else None,
        "error": _error(job),
        "model": MODEL,
        "progress": percent,
        "prompt": asked.text,
        "remixed_from_video_id": asked.source,
        "seconds": str(asked.time_length if asked.stitched is None else asked.stitched),
        "size": f"{asked.width}x{asked.height}",
        "status": "failed" if job.status == "cancelled" else job.status,
        "seed": asked.seed,
        "format": asked.ending.removeprefix("."),
        "fps": asked.fps,
        "crf": asked.crf,
        "codec": asked.codec,
        "metadata": asked.metadata,
        "loras": asked.loras,
        "interpolate": asked.interpolate,
        "interpolate_with": asked.interpolate_with,
        "inputs": list(asked.inputs),
        "strength": asked.strength,
        "fit": asked.fit,
        "overlap": asked.overlap,
        "added_seconds": None if asked.overlap is None else asked.time_length,
        "queue_place": place,
        "stage": now.stage if now is not None else None,
        "step": now.step if now is not None else None,
        "total_steps": now.total if now is not None else None,
        "timings": job.timings or None,
        "bytes": job.size or None,
    }


def _error(job: Job) -> dict[str, str | None] | None:
    if job.status == "cancelled":
        return {"code": "cancelled", "message": "the job was cancelled"}
    return {"code": job.code or "failed", "message": job.reason or ""} if job.status == "failed" else None
