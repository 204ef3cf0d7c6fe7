"""Routes of `/v1/videos`."""

from typing import TYPE_CHECKING, Any, Literal

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, StreamingResponse
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.types import Message, Receive, Scope, Send

from kandinsky.serving.answers import Refusal, not_found, not_here, wrong
from kandinsky.serving.bodies import as_form
from kandinsky.serving.events import events
from kandinsky.serving.fields import EDIT_FIELDS, EXTEND_FIELDS, VIDEO_FIELDS
from kandinsky.serving.posts import EDIT, EXTEND, MAKE, post
from kandinsky.serving.service import Service, check_query
from kandinsky.serving.stills import spritesheet, thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from kandinsky.serving.job import Kind

MEDIA = {
    ".mp4": "video/mp4",
    ".mov": "video/quicktime",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
}

STILLS = {"thumbnail": thumbnail, "spritesheet": spritesheet}
MAX_PAGE = 100


class Download(FileResponse):
    """A file, whose `background` runs only if all of it was sent to a client that was there until the end."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        request, status = Request(scope, receive), 0
        then, self.background = self.background, None

        async def watched(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            ends = message["type"] == "http.response.body" and not message.get("more_body", False)
            # What is sent to a client that is gone is thrown away without a word.
            if ends and status == 200 and not await request.is_disconnected():
                self.background = then
            await send(message)

        await request.body()
        await super().__call__(scope, receive, watched)


def add_videos(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    _add_posts(app, service)
    _add_jobs(app, service)
    _add_results(app, service)
    _add_later(app, service)


def _add_posts(app: FastAPI, service: Service) -> None:
    @app.post("/v1/videos", tags=["videos"], openapi_extra=as_form(VIDEO_FIELDS))
    async def create(request: Request) -> dict[str, Any]:
        """A new job. A repeated `Idempotency-Key` gives the same job."""
        return await post(service, request, MAKE)

    @app.post("/v1/videos/edits", tags=["videos"], openapi_extra=as_form(EDIT_FIELDS))
    async def edit(request: Request) -> dict[str, Any]:
        """A job that changes a video: one that is sent, or `video={"id": ...}`, an own completed one."""
        return await post(service, request, EDIT)

    @app.post("/v1/videos/extensions", tags=["videos"], openapi_extra=as_form(EXTEND_FIELDS))
    async def extend(request: Request) -> dict[str, Any]:
        """A job that goes on from a video."""
        return await post(service, request, EXTEND)

    @app.post("/v1/videos/{video_id}/remix", tags=["videos"], openapi_extra=as_form(EDIT_FIELDS))
    async def remix(video_id: str, request: Request) -> dict[str, Any]:
        """An edit of an own completed video."""
        return await post(service, request, EDIT, video={"id": video_id})


def _add_jobs(app: FastAPI, service: Service) -> None:
    @app.get("/v1/videos", tags=["videos"])
    def page(
        request: Request,
        after: str | None = None,
        limit: int = 20,
        order: Literal["asc", "desc"] = "desc",
        kind: Literal["video", "image", "all"] = "video",
    ) -> dict[str, Any]:
        """Jobs of the key, the newest first: videos, images or both."""
        owner = service.owner_of(request)
        check_query(request, "after", "limit", "order", "kind")
        if not 1 <= limit <= MAX_PAGE:
            raise wrong(f"limit={limit}: allowed is 1 to {MAX_PAGE}", param="limit")
        number = service.job_of(after, request).number if after is not None else None
        only: Kind | None = None if kind == "all" else kind
        jobs, more = service.store.page(owner=owner, limit=limit, after=number, ascending=order == "asc", kind=only)
        data = [service.show(job) for job in jobs]
        ends = {"first_id": data[0]["id"] if data else None, "last_id": data[-1]["id"] if data else None}
        return {"object": "list", "data": data, **ends, "has_more": more}

    @app.get("/v1/videos/{video_id}", tags=["videos"])
    async def retrieve(video_id: str, request: Request) -> dict[str, Any]:
        """A job as it is now."""  # asked for all the time, and read sooner than a thread is woken
        check_query(request)
        return service.show(service.job_of(video_id, request))

    @app.delete("/v1/videos/{video_id}", tags=["videos"])
    def delete(video_id: str, request: Request) -> dict[str, Any]:
        """Forget a job and its files; one that runs is stopped."""
        job = service.job_of(video_id, request)
        check_query(request)
        if job.is_open:
            service.store.cancel(video_id)
            service.scheduler.cancel(video_id)
        service.store.delete(video_id)
        service.scheduler.live.call_all()
        return {"id": video_id, "object": "video.deleted", "deleted": True}

    @app.post("/v1/videos/{video_id}/cancel", tags=["videos"])
    def cancel(video_id: str, request: Request) -> dict[str, Any]:
        """Stop a job: at once if it waits, after the step that runs if not. One that has ended stays as it is."""
        service.job_of(video_id, request)
        check_query(request)
        job = service.store.cancel(video_id)
        if job is None:
            raise not_found(video_id)
        service.scheduler.cancel(video_id)
        service.scheduler.live.call_all()
        return service.show(job)


def _add_results(app: FastAPI, service: Service) -> None:
    @app.get("/v1/videos/{video_id}/content", tags=["videos"])
    def content(video_id: str, request: Request, variant: str = "video") -> FileResponse:
        """The file of a completed job; or `variant=thumbnail`, its middle frame, or `spritesheet`, 25 of its frames."""
        job = service.job_of(video_id, request)
        check_query(request, "variant")
        if variant not in ("video", *STILLS):
            raise wrong(f"variant={variant[:40]!r}: allowed are video, thumbnail and spritesheet", param="variant")
        if job.status != "completed":
            said = f"the video is not there: its job is {service.show(job)['status']}"
            raise Refusal(404, said, code="video_not_ready", param="video_id")
        path: Path = service.store.file_of(job)
        if not path.is_file():
            raise Refusal(404, "the video's file is gone", code="file_gone", param="video_id")
        if variant in STILLS:
            try:
                still = STILLS[variant](path)
            except OSError as error:
                raise Refusal(500, str(error), code="file_unreadable", param="variant") from None
            return FileResponse(still, media_type=MEDIA[still.suffix], content_disposition_type="inline")
        return Download(
            path,
            media_type=MEDIA[job.asked.ending],
            filename=f"{job.id}{job.asked.ending}",
            content_disposition_type="inline",
            background=BackgroundTask(service.store.fetched, job.id),
        )

    @app.get("/v1/videos/{video_id}/events", tags=["videos"])
    async def follow(
        video_id: str, request: Request, cancel_on_disconnect: bool = False, preview: bool = True
    ) -> StreamingResponse:
        """What happens to a job, as server-sent events: queued, progress, preview, completed or failed."""
        check_query(request, "cancel_on_disconnect", "preview")
        await run_in_threadpool(service.job_of, video_id, request)
        stream = events(
            service.scheduler, video_id, service.show, cancel_when_gone=cancel_on_disconnect, pictures=preview
        )
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(stream, media_type="text/event-stream", headers=headers)


def _add_later(app: FastAPI, service: Service) -> None:
    """What the protocol has and this server does not: said in the protocol's shape."""

    @app.post("/v1/videos/characters", tags=["not here"])
    @app.get("/v1/videos/characters/{character_id}", tags=["not here"])
    async def later(request: Request) -> None:
        """Characters, which this model has not."""
        service.owner_of(request)
        raise not_here(f"{request.method} {request.url.path[:100]}")
