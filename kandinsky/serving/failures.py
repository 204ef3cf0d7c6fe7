"""What is said of a job that cannot be made."""

import torch

from kandinsky.errors import KandinskyError
from kandinsky.serving.messages import Failed


def failure_of(job_id: str, error: Exception) -> Failed:
    """The message that an error ended a job."""
    return Failed(job_id, code_of(error), f"{type(error).__name__}: {error}")


def code_of(error: Exception) -> str:
    """What the protocol's `error.code` says."""
    text = f"{error} {error.__cause__}"
    if "No space left" in text:
        return "disk_full"
    if isinstance(error, torch.OutOfMemoryError) or "out of memory" in text:
        return "out_of_memory"
    if isinstance(error, ValueError):
        return "invalid_value"
    return "generation_failed" if isinstance(error, KandinskyError) else "internal_error"
