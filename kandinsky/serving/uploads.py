"""Files that clients send or name: into a folder that becomes their job's own.

A file is known by its first bytes, never by its name: pictures, and videos of kinds that hold their own data. A
playlist or a script, in which ffmpeg would find paths of other files, is none of them. Nothing is fetched from an
address.
"""

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from starlette.datastructures import UploadFile

from kandinsky.atomic import remove
from kandinsky.errors import shown
from kandinsky.serving.answers import not_found, wrong
from kandinsky.serving.arrivals import force
from kandinsky.serving.job import Job, new_id
from kandinsky.serving.store import Store

PICTURES = {rb"\x89PNG\r\n\x1a\n": ".png", rb"\xff\xd8\xff": ".jpg", rb"RIFF....WEBP": ".webp"}
VIDEOS = {
    rb"....(ftyp|moov|mdat|wide|free|skip)": ".mp4",
    rb"\x1a\x45\xdf\xa3": ".mkv",
    rb"RIFF....AVI ": ".avi",
    rb"GIF8[79]a": ".gif",
}
"""First bytes of a file, and the ending that it gets."""
KINDS = {"image": PICTURES, "last_image": PICTURES, "video": VIDEOS, "mask": {**PICTURES, **VIDEOS}}
"""What each argument of a call may be."""
RESULTS = {"image": ("image",), "last_image": ("image",), "video": ("video",), "mask": ("image", "video")}
"""Kinds of jobs whose result each argument may be."""
FIELDS = {"input_reference": "image", **{name: name for name in KINDS}}
"""Fields of a body, with the arguments that they are for."""
HEAD = 16
"""Bytes that tell a kind."""


@dataclass(frozen=True)
class Staged:
    """Files of a job to come.

    Args:
        folder: where they are; it becomes the job's.
        names: of the files, by arguments.
        marks: SHA-256 of each, by arguments.
        source: id of the job that one is of.
    """

    folder: Path
    names: Mapping[str, str]
    marks: Mapping[str, str]
    source: str | None


@contextmanager
def staged(
    store: Store, given: Mapping[str, Any], find: Callable[[str], Job], *, again: Job | None = None
) -> Iterator[Staged]:
    """The files of a body; the folder is removed at the end unless it has become a job's.

    Args:
        given: by arguments: a file that was sent, `{"image_url": "data:..."}`, or `{"id": ID}` of a job of the owner.
        find: that job.
        again: a job whose inputs are used once more.

    Raises:
        Refusal: names the field.
    """
    store.files.mkdir(exist_ok=True)  # somebody may have removed it
    folder = store.files / new_id("upload")
    folder.mkdir()
    try:
        names, source = {}, None if again is None else again.asked.source
        for name, file in {} if again is None else again.asked.inputs.items():
            assert again is not None
            _of_job(again, store.folder_of(again.id) / file, folder / file)
            names[name] = file
        for name, value in given.items():
            if isinstance(value, Mapping) and set(value) == {"id"}:
                job = _completed(find, str(value["id"]), name)
                source = job.id if name == "video" else source
                names[name] = f"given_{name}{job.asked.ending}"
                _of_job(job, store.file_of(job), folder / names[name])
            else:
                names[name] = _sent(value, folder, name)
        marks = {name: _mark(folder / file) for name, file in names.items()}
        force(folder)
        yield Staged(folder, names, marks, source)
    finally:
        remove(folder)


def _completed(find: Callable[[str], Job], job_id: str, name: str) -> Job:
    """A job whose result is what an argument may be."""
    job = find(job_id)
    if job.status != "completed" or job.asked.kind not in RESULTS[name]:
        said = f"{name}={job_id[:64]!r}: allowed is a completed {' or '.join(RESULTS[name])}"
        raise wrong(said, param=name, code="video_not_ready")
    if job.asked.kind == "video" and job.asked.ending == ".webp":
        raise wrong(f"{name}={job.id!r}: an animated webp cannot be read again", param=name)
    return job


def _of_job(job: Job, source: Path, target: Path) -> None:
    """Take a file of a job, unless the job was deleted meanwhile."""
    try:
        _link(source, target)
    except FileNotFoundError:
        raise not_found(job.id) from None


def _link(source: Path, target: Path) -> None:
    """The same file twice, where the disk can have that: either may be deleted."""
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(source, target)


def _sent(value: object, folder: Path, name: str) -> str:
    """Keep a file under a name of ours."""
    partial = folder / f"given_{name}"
    with partial.open("wb") as file:
        if isinstance(value, UploadFile):
            shutil.copyfileobj(value.file, file)
        else:
            file.write(_data(value, name))
        file.flush()
        os.fsync(file.fileno())
    with partial.open("rb") as file:
        ending = _ending(file, name)
    return partial.rename(partial.with_suffix(ending)).name


def _ending(file: BinaryIO, name: str) -> str:
    head = file.read(HEAD)
    for pattern, ending in KINDS[name].items():
        if re.match(pattern, head, re.DOTALL):
            return ending
    allowed = ", ".join(dict.fromkeys(ending.removeprefix(".") for ending in KINDS[name].values()))
    raise wrong(f"{name}: the file is none of {allowed}", param=name, code="unsupported_file")


def _data(value: object, name: str) -> bytes:
    """The bytes of a `data:` address."""
    url = value.get("image_url") if isinstance(value, Mapping) and set(value) == {"image_url"} else None
    found = re.match(r"data:[\w/+.-]*;base64,", url) if isinstance(url, str) else None
    if found is None or not isinstance(url, str):
        allowed = "a file, {'image_url': 'data:...;base64,...'}, or {'id': a completed job's}"
        raise wrong(f"{name}={shown(value)}: allowed is {allowed}; nothing is fetched", param=name)
    try:
        return base64.b64decode(url[found.end() :], validate=True)
    except ValueError as error:  # characters that are none of base64's, or too few
        raise wrong(f"{name}: not base64: {error}", param=name) from None


def _mark(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
