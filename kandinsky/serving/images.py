"""`POST /v1/images/generations`: images are jobs too, and the answer waits for them."""

import asyncio
import base64
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool

from kandinsky.serving.answers import Refusal
from kandinsky.serving.bodies import as_form, read_body, truth_in
from kandinsky.serving.fields import IMAGE_FIELDS, images_of
from kandinsky.serving.job import Job
from kandinsky.serving.service import Service, check_query

LOOK = 1.0
"""Seconds between two looks whether the client is still there."""


def add_images(app: FastAPI, service: Service) -> None:
    """Add the route."""

    @app.post("/v1/images/generations", tags=["images"], openapi_extra=as_form(IMAGE_FIELDS))
    async def create(request: Request) -> dict[str, Any]:
        """Images, when they are all made; if the client goes away before, they are not. Or at once, as jobs."""
        owner = service.owner_of(request)
        check_query(request)
        body = await read_body(request)
        asked = images_of(body, service.options)
        key = request.headers.get("idempotency-key")
        soon = truth_in(body, "background", default=False)
        jobs = await service.create(asked, owner=owner, body=body, key=key)
        about = {"created": int(jobs[0].created), "output_format": asked[0].ending[1:]}
        if soon:
            return {**about, "data": [service.show(job) for job in jobs]}
        try:
            data = [await _made(service, job, request) for job in jobs]
        except (Refusal, asyncio.CancelledError):
            for job in jobs if key is None else ():  # with a key the client may come again for it
                service.scheduler.stop(job.id)
            raise
        return {**about, "data": data}


async def _made(service: Service, job: Job, request: Request) -> dict[str, Any]:
    """An image once it is complete.

    Raises:
        Refusal: it failed, or nobody waits for it.
    """
    async with service.scheduler.live.follow(job.id) as follower:
        while (now := await run_in_threadpool(service.store.get, job.id)) is not None and now.is_open:
            if await request.is_disconnected():
                raise Refusal(499, "the client went away", code="cancelled")
            if service.scheduler.live.closed:
                raise Refusal(503, "the server ended before the image was made", code="draining")
            await follower.wait(LOOK)
    if now is None or now.status != "completed":
        code, reason = ("cancelled", "it was cancelled") if now is None else (now.code, now.reason)
        raise Refusal(500, f"the image was not made: {reason}", code=code or "cancelled")
    content = await run_in_threadpool(service.store.file_of(now).read_bytes)
    await run_in_threadpool(service.store.fetched, job.id)
    return {"b64_json": base64.b64encode(content).decode(), "seed": now.asked.seed}
