"""Every exception of this library that a user can catch; all are a `KandinskyError`.

Wrong arguments are a `ValueError` and missing files a `FileNotFoundError`, both before anything was loaded. What stands
here is the rest: a file that is damaged, a run that failed or was stopped.
"""

SHOWN = 200
"""Characters of a value that a message repeats."""


def shown(value: object) -> str:
    """A value for a message: its `repr`, of a long one the beginning and its length."""
    text = repr(value[: SHOWN + 1] if isinstance(value, str | bytes) else value)
    whole = len(value) if isinstance(value, str | bytes) else len(text)
    return text if len(text) <= SHOWN + 2 else f"{text[:SHOWN]}... ({whole} characters)"


class KandinskyError(RuntimeError):
    """Base class of what this library raises by names of its own."""


class CheckpointError(KandinskyError):
    """A weight file is damaged or belongs to something else; the message names the file and the keys."""


class RecordError(KandinskyError):
    """A file has no record of a generation, or one that cannot be read; the message names the file."""


class VideoError(KandinskyError):
    """ffmpeg could not read or write a video, or make frames between its frames; the message holds what it said."""


class UnreadableVideoError(KandinskyError):
    """A file that was to become a clip of training data gives none; the message says why."""


class TrainingError(KandinskyError):
    """A training run cannot go on: a loss is not finite, say; the message names the checkpoint that stands."""


class DecodeError(KandinskyError):
    """Latents were sampled but not made into what was asked for; the message says where they are saved."""


class StoppedError(KandinskyError):
    """A callback or an interrupt stopped the run; nothing of the video that was being sampled was written."""


class LaunchError(KandinskyError):
    """One of several processes failed; its own message stands above."""


class WorkersError(KandinskyError):
    """No worker of a cluster can load the weights; the message has the reason."""


class NothingFits(KandinskyError, ValueError):  # noqa: N818  # it says what is the case
    """No memory mode fits an argument of the request; the message says what is missing and what would fit."""
