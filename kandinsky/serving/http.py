"""The videos protocol over the store: `docs/serving.md` has it in words. No pipeline is known here.

Handlers that write, or read more than a line, run on threads: the event loop never waits for the disk, so `/health`
answers while weights load and while the database is locked.
"""

import sqlite3
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from kandinsky.config import VERSION
from kandinsky.serving import page
from kandinsky.serving.answers import Refusal, turned_away
from kandinsky.serving.guard import Guard
from kandinsky.serving.images import add_images
from kandinsky.serving.log import Log
from kandinsky.serving.metrics import Metrics
from kandinsky.serving.options import MODEL, Options
from kandinsky.serving.scheduler import Scheduler
from kandinsky.serving.service import Service, check_query
from kandinsky.serving.videos import add_videos


def make_app(scheduler: Scheduler, options: Options, *, metrics: Metrics, log: Log) -> Guard:
    """The application; the scheduler is started and ended by who made it."""
    about = "The videos protocol, and fields of our own."
    app = FastAPI(title="Kandinsky", version=VERSION, description=about, docs_url=None, redoc_url=None)
    service = Service(scheduler, options, log)
    app.add_exception_handler(Refusal, _refused)
    app.add_exception_handler(HTTPException, _no_route)
    app.add_exception_handler(404, _no_route)
    app.add_exception_handler(405, _no_route)
    app.add_exception_handler(RequestValidationError, _no_value)
    app.add_exception_handler(sqlite3.Error, _no_store)
    app.add_exception_handler(OSError, _no_store)
    app.add_exception_handler(ClientDisconnect, _gone)
    app.add_exception_handler(Exception, _fault)
    add_videos(app, service)
    add_images(app, service)
    _add_state(app, service, metrics)
    page.add_page(app)
    return Guard(app, names=options.hosts, max_body=options.max_body)


def _add_state(app: FastAPI, service: Service, metrics: Metrics) -> None:
    scheduler, options = service.scheduler, service.options

    @app.get("/health", tags=["state"])
    async def health() -> dict[str, str]:
        """Answers as long as the server runs."""
        return {"status": "ok"}

    @app.get("/ready", tags=["state"])
    async def ready() -> Response:
        """Whether jobs are made now: 200, or 503 with what each worker does."""
        workers = {hand.name: hand.why for hand in list(scheduler.hands.values())}
        works = scheduler.is_ready and not scheduler.draining
        status = "draining" if scheduler.draining else "ready" if works else "loading"
        return JSONResponse({"status": status, "workers": workers}, 200 if works else 503)

    @app.get("/metrics", tags=["state"])
    async def all_metrics() -> Response:
        """For Prometheus."""
        return Response(await run_in_threadpool(metrics.text), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", tags=["state"])
    async def models(request: Request) -> dict[str, Any]:
        """The model, and what may be asked of it."""
        service.owner_of(request)
        check_query(request)
        model_set = options.model_set
        facts = {
            "sizes": [f"{width}x{height}" for width, height in model_set.sizes],
            "default_size": "x".join(map(str, options.size)),
            "max_seconds": options.longest,
            "fps": model_set.fps,
            "precision": options.precision,
            "max_prompt": options.max_prompt,
            "max_extension": options.longest_extension,
            "max_body": options.max_body,
            "loras": options.loras,
        }
        one = {"id": MODEL, "object": "model", "created": 0, "owned_by": "kandinsky", **facts}
        return {"object": "list", "data": [one]}


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return error.response()


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 500)
    said = f"{request.method} {request.url.path[:100]}: {getattr(error, 'detail', error)}"
    return Refusal(status, said, code="not_found" if status == 404 else "not_allowed").response()


async def _no_value(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return Refusal(400, f"{name}: {first['msg']}", code="invalid_value", param=name).response()


async def _gone(_request: Request, _error: Exception) -> Response:
    """The client went away in the middle of its body; nobody reads this."""
    return Refusal(499, "the client went away", code="cancelled").response()


async def _fault(_request: Request, error: Exception) -> Response:
    """A fault of this server's own; its place stands in the server's output."""
    return Refusal(500, f"the server failed: {type(error).__name__}", code="internal_error").response()


async def _no_store(_request: Request, error: Exception) -> Response:
    reason = getattr(error, "strerror", None) or error  # of the system's errors without the path
    return turned_away(f"the store cannot be used now: {reason}", code="store_unavailable").response()
