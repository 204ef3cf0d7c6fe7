"""What the routes share: who asks, a new job, and a job as it is told."""

import asyncio
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from kandinsky.serving.answers import Refusal, not_found, turned_away, video, wrong
from kandinsky.serving.arrivals import Arrival, FullError, OtherBodyError
from kandinsky.serving.checker import Checker, Look
from kandinsky.serving.fields import refused
from kandinsky.serving.job import Asked, Job
from kandinsky.serving.log import Log
from kandinsky.serving.options import Options
from kandinsky.serving.scheduler import Scheduler

MAX_KEY = 200
"""Characters of an Idempotency-Key."""


class Service:
    """The store and the scheduler, as the routes use them."""

    def __init__(self, scheduler: Scheduler, options: Options, log: Log):
        self.scheduler = scheduler
        self.store = scheduler.store
        self.options = options
        self._log = log
        self._checker = Checker(options.model_set)
        self._looking = asyncio.Lock()  # the checker takes one at a time: who waits for it is not to hold a thread

    def owner_of(self, request: Request) -> str:
        """Whose key a request has.

        Raises:
            Refusal: nobody's.
        """
        kind, _, key = request.headers.get("authorization", "").partition(" ")
        owner = self.options.keys.owner_of(key.strip() if kind.lower() == "bearer" else None)
        if owner is None:
            said = "no such API key; send one as: Authorization: Bearer KEY"
            raise Refusal(401, said, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return owner

    def job_of(self, job_id: str, request: Request) -> Job:
        """A job of the owner who asks.

        Raises:
            Refusal: there is none.
        """
        job = self.store.get(job_id, owner=self.owner_of(request))
        if job is None:
            raise not_found(job_id)
        return job

    async def look(self, asked: Asked, folder: Path, *, sized: bool, timed: bool) -> Asked:
        """A job with inputs, which are in `folder`, with the size and length that it will have; see `checker.Look`.

        Raises:
            Refusal: they cannot be used.
        """
        try:
            async with self._looking:
                found = await run_in_threadpool(self._checker.check, Look(asked, folder, sized, timed))
        except ValueError as error:
            raise refused(str(error).replace(f"{folder}{os.sep}", "")) from None
        if found.overlap is None and found.time_length > self.options.longest:
            said = f"the video has {found.time_length} seconds: allowed is 1 to {self.options.longest}"
            raise wrong(said, param="video")
        return found

    async def create(
        self,
        asked: Sequence[Asked],
        *,
        owner: str,
        body: Mapping[str, Any],
        key: str | None = None,
        folder: Path | None = None,
    ) -> list[Job]:
        """New jobs, on the disk when this returns.

        Args:
            body: as it was sent; of files what tells them from others.
            key: an Idempotency-Key.
            folder: with the inputs of one job.

        Raises:
            Refusal: no room, or a key that cannot be used.
        """
        if self.scheduler.draining:
            raise turned_away("the server is about to end and takes no more jobs", code="draining")
        if key is not None and (not key.strip() or len(key) > MAX_KEY or len(asked) != 1):
            raise wrong(f"Idempotency-Key: allowed are 1 to {MAX_KEY} characters, for one job", param="Idempotency-Key")
        options = self.options
        try:
            arrival = Arrival(
                asked=tuple(asked),
                owner=owner,
                repeat=None if key is None else (key, _digest(asked[0], body)),
                most_queued=options.max_queue,
                most_of_owner=options.max_jobs_of_key,
                folder=folder,
            )
            jobs = await asyncio.wrap_future(self.store.create_soon(arrival))
        except FullError as error:
            raise turned_away(str(error), code="queue_full", status=429) from None
        except OtherBodyError:
            said = "this Idempotency-Key came with another body before"
            raise Refusal(422, said, code="idempotency_key_reused", param="Idempotency-Key") from None
        for job in jobs:
            prompt = {"prompt": job.asked.text} if options.log_prompts else {}
            self._log("job posted", job=job.id, owner=owner, **prompt)
        self.scheduler.wake()
        return jobs

    def show(self, job: Job) -> dict[str, Any]:
        """A job as the protocol's object, with its place and progress."""
        now = self.scheduler.live.now(job.id) if job.status == "in_progress" else None
        if job.status == "in_progress" and now is None:  # it has ended since it was read, which is noted first
            job = self.store.get(job.id) or job
        place = self.store.place(job) if job.status == "queued" else None
        return video(job, now=now, place=place, keep_days=self.options.keep_days)


def check_query(request: Request, *known: str) -> None:
    """Refuse a parameter that would be passed over: one that is not known, or came before.

    Raises:
        Refusal: names it.
    """
    for name in request.query_params:
        if name not in known:
            allowed = ", ".join(known) or "none"
            raise wrong(
                f"unknown parameter {name[:64]!r}; allowed: {allowed}", param=name[:64], code="unknown_parameter"
            )
        if len(request.query_params.getlist(name)) > 1:
            raise wrong(f"the parameter {name} came twice", param=name)


def _digest(asked: Asked, body: Mapping[str, Any]) -> str:
    """Of what was asked for: the same words to another route are another order."""
    route = (asked.kind, asked.overlap is None, asked.strength)
    return hashlib.sha256(json.dumps([route, body], sort_keys=True, default=str).encode()).hexdigest()
