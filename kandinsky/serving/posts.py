"""A POST that asks for a video: its fields, its files, and the job."""

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from kandinsky.serving.answers import wrong
from kandinsky.serving.bodies import read_body
from kandinsky.serving.fields import EDIT_FIELDS, EXTEND_FIELDS, VIDEO_FIELDS, edit_of, extension_of, video_of
from kandinsky.serving.job import Asked, Job
from kandinsky.serving.options import Options
from kandinsky.serving.service import Service, check_query
from kandinsky.serving.uploads import FIELDS, staged


@dataclass(frozen=True)
class Task:
    """A kind of job.

    Args:
        fields: that its body may have.
        asked: (body without files, options, arguments that files come for) -> what it asks for.
        needs: the argument that it cannot do without.
    """

    fields: Mapping[str, str]
    asked: Callable[[Mapping[str, Any], Options, Collection[str]], Asked]
    needs: str | None = None


MAKE = Task(VIDEO_FIELDS, lambda body, options, inputs: video_of(body, options, inputs=inputs))
EDIT = Task(EDIT_FIELDS, lambda body, options, inputs: edit_of(body, options, inputs=inputs), "video")
EXTEND = Task(EXTEND_FIELDS, lambda body, options, inputs: extension_of(body, options, inputs=inputs), "video")


async def post(service: Service, request: Request, task: Task, **files: object) -> dict[str, Any]:
    """A new job, as it is told.

    Args:
        files: that do not come with the body.

    Raises:
        Refusal: a field or a file is not what it may be, or there is no room.
    """
    owner = service.owner_of(request)
    check_query(request)
    body = await read_body(request)
    key = request.headers.get("idempotency-key")
    given = files | _files(body, task, without=files)
    again = _again(service, request, body, task)
    inputs = {*given, *(() if again is None else again.asked.inputs)}
    if task.needs is not None and task.needs not in inputs:
        raise wrong(f"{task.needs} is missing", param=task.needs, code="missing_parameter")
    asked = task.asked({name: value for name, value in body.items() if name != "inputs_of"}, service.options, inputs)
    if not inputs:
        (job,) = await service.create([asked], owner=owner, body=body, key=key)
        return service.show(job)
    with ExitStack() as stack:
        files_of_job = staged(service.store, given, lambda job_id: service.job_of(job_id, request), again=again)
        stage = await run_in_threadpool(stack.enter_context, files_of_job)
        asked = replace(asked, inputs=stage.names, source=stage.source)
        timed = "seconds" in body or "video" not in inputs
        asked = await service.look(asked, stage.folder, sized="size" in body, timed=timed)
        told = {**body, "files": stage.marks, "path": request.url.path}
        (job,) = await service.create([asked], owner=owner, body=told, key=key, folder=stage.folder)
    return service.show(job)


def _files(body: dict[str, Any], task: Task, *, without: Collection[str]) -> dict[str, Any]:
    """Take the files out of a body, by the arguments that they are for.

    Raises:
        Refusal: an argument has two.
    """
    found: dict[str, Any] = {}
    for field in [name for name in FIELDS if name in task.fields and body.get(name) is not None]:
        if FIELDS[field] in found or FIELDS[field] in without:
            raise wrong(f"{field}: there is one already", param=field)
        found[FIELDS[field]] = body.pop(field)
    return found


def _again(service: Service, request: Request, body: Mapping[str, Any], task: Task) -> Job | None:
    """The job whose inputs are used once more."""
    job_id = body.get("inputs_of") if "inputs_of" in task.fields else None
    return None if job_id is None else service.job_of(str(job_id), request)
