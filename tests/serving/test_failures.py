"""Codes of failed jobs."""

import pytest
import torch

from kandinsky.errors import DecodeError
from kandinsky.serving.failures import code_of, failure_of
from kandinsky.serving.messages import Failed


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(28, "No space left on device"), "disk_full"),
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (ValueError("width"), "invalid_value"),
        (DecodeError("not finished"), "generation_failed"),
        (KeyError("a slip of ours"), "internal_error"),
    ],
)
def test_codes(error, code):
    assert code_of(error) == code


def test_what_is_said():
    assert failure_of("video_1", ValueError("width=3")) == Failed("video_1", "invalid_value", "ValueError: width=3")
