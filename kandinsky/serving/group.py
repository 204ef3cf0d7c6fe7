"""Several processes that make each video together: the first one says what comes next, the others follow.

A work is told through the group's store, where the others wait for it as long as it takes. From then on all ranks do
the same, to its end: whoever fails alone ends the group, since the others may wait for it in a collective for ever.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn, cast

from kandinsky.errors import StoppedError
from kandinsky.parallel.watchdog import is_loss
from kandinsky.serving.failures import failure_of
from kandinsky.serving.messages import Failed
from kandinsky.serving.rest import finish_rest

if TYPE_CHECKING:
    from kandinsky.pipeline import Kandinsky4T2VPipeline
    from kandinsky.request import Request


@dataclass(frozen=True)
class Work:
    """What comes next.

    Args:
        job_id: of the job that it is for.
        kind: a request, an extension, or the rest of a video that was sampled before.
        loras: weight of each LoRA that is to be merged, of those that the pipeline has; None leaves them as they are.
    """

    job_id: str
    kind: Literal["request", "extension", "rest"]
    loras: Mapping[str, float] | None = None


def begin(pipe: "Kandinsky4T2VPipeline", work: Work) -> None:
    """Tell the other ranks, if there are any, and merge with them what is to be merged; the caller does its part then.

    Raises:
        CheckpointError: weights cannot be read again.
    """
    if pipe.team.size > 1:
        pipe.ranks.share(work)
    if work.loras is not None:
        pipe.use_adapters(work.loras)


def follow(pipe: "Kandinsky4T2VPipeline", say: Callable[[Failed], object]) -> NoReturn:
    """Do this rank's part of all works; the process is ended from outside, or ends itself when it fails.

    Args:
        say: tells the server why a job failed here.
    """
    while True:
        try:
            work = pipe.ranks.share(cast("Work", None))
        except Exception:  # noqa: BLE001  # the first rank is gone, and the store with it
            os._exit(1)
        try:
            _help(pipe, work)
        except StoppedError:
            continue
        except Exception as error:  # noqa: BLE001  # the group is started anew
            if not is_loss(error):
                say(failure_of(work.job_id, error))
            os._exit(1)


def _help(pipe: "Kandinsky4T2VPipeline", work: Work) -> None:
    """The first rank's arguments count: others pass anything."""
    if work.loras is not None:
        pipe.use_adapters(work.loras)
    if work.kind == "extension":
        pipe.extend(Path(), "", seconds=1)
    elif work.kind == "request":
        pipe.run(cast("Request", None))
    else:
        finish_rest(pipe, None)
