"""What the scheduler and its workers say to each other; every message is a value that can be pickled."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from kandinsky.serving.job import Asked


@dataclass(frozen=True)
class Make:
    """To a worker: make a job; in `folder` are its inputs, and there may be what an earlier worker left of it.

    `files` are the inputs by their names in that folder where the worker has another disk.
    """

    job_id: str
    asked: Asked
    folder: str
    preview: bool = False
    files: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Cancel:
    """To a worker: stop a job after the step that runs."""

    job_id: str


@dataclass(frozen=True)
class Preview:
    """To a worker: whether anybody looks at a job while it is made."""

    job_id: str
    wanted: bool


@dataclass(frozen=True)
class Stop:
    """To a worker: end when nothing is left to do."""


ToWorker = Make | Cancel | Preview | Stop


@dataclass(frozen=True)
class Ready:
    """Of a worker: the weights are loaded. `memory` is bytes that are allocated on its GPU."""

    pid: int
    memory: int = 0


@dataclass(frozen=True)
class Refused:
    """Of a worker: the weights cannot be loaded, and why; `argument` if the user has to mend an argument."""

    reason: str
    argument: bool


@dataclass(frozen=True)
class Stage:
    """Of a worker: what it does for a job now: reading the prompt, sampling, decoding, writing."""

    job_id: str
    name: str


@dataclass(frozen=True)
class Step:
    """Of a worker: steps done of `total`, and the middle frame so far as a JPEG if somebody looks."""

    job_id: str
    step: int
    total: int
    picture: bytes | None = None


@dataclass(frozen=True)
class Free:
    """Of a worker: it can begin another job, though the last one's file may still be on its way."""


@dataclass(frozen=True)
class Done:
    """Of a worker: the file of a job is complete. `content` is the file where the worker has another disk."""

    job_id: str
    timings: Mapping[str, float] = field(default_factory=dict)
    memory: int = 0
    content: bytes | None = None


@dataclass(frozen=True)
class Stopped:
    """Of a worker: a job was cancelled."""

    job_id: str


@dataclass(frozen=True)
class Failed:
    """Of a worker: a job cannot be made."""

    job_id: str
    code: str
    reason: str


@dataclass(frozen=True)
class Gone:
    """Of whoever started a worker: it has ended, and how."""

    how: str


FromWorker = Ready | Refused | Stage | Step | Free | Done | Stopped | Failed | Gone
