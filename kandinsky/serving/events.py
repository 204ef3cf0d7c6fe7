"""What happens to a job, as server-sent events, for one client that follows it."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from kandinsky.serving.job import OPEN, Job
from kandinsky.serving.scheduler import Scheduler

PATIENCE = 10.0
"""Seconds of silence after which a comment is sent, so that nobody in between takes the connection for dead."""
Show = Callable[[Job], dict[str, Any]]
"""A job as the protocol's object, in the state that it is in by now."""


def event(name: str, value: Any) -> str:
    """One event."""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n"


async def events(
    scheduler: Scheduler, job_id: str, show: Show, *, cancel_when_gone: bool, pictures: bool
) -> AsyncIterator[str]:
    """Events until the job has ended.

    Args:
        show: a job as it is told.
        cancel_when_gone: stop the job if the client goes away before.
        pictures: have previews made, and send them.

    Yields:
        `queued` and `progress` (the job), `preview` (step, JPEG in base64), `completed` or `failed` (the job),
        `deleted`, and `closing` if the server ends before the job.
    """
    ended = False
    try:
        async with scheduler.live.follow(job_id, pictures=pictures) as follower:
            told, pictured = None, 0
            while True:
                job = await run_in_threadpool(scheduler.store.get, job_id)
                now = scheduler.live.now(job_id)
                telling = None if job is None else await run_in_threadpool(show, job)
                if telling is None or telling["status"] not in OPEN:
                    ended = True
                    yield event("deleted", {"id": job_id}) if telling is None else event(telling["status"], telling)
                    return
                if scheduler.live.closed:
                    yield event("closing", telling)
                    return
                if pictures and now is not None and now.picture is not None and now.pictured > pictured:
                    pictured = now.pictured
                    picture = base64.b64encode(now.picture).decode()
                    yield event("preview", {"step": pictured, "total_steps": now.total, "jpeg": picture})
                if telling != told:
                    told = telling
                    yield event("queued" if telling["status"] == "queued" else "progress", telling)
                elif not await follower.wait(PATIENCE):
                    yield ": still here\n\n"
    finally:
        if cancel_when_gone and not ended and not scheduler.live.closed:
            scheduler.stop(job_id)
