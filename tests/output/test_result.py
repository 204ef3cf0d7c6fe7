"""Results: frozen, and complete when they are built."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kandinsky.output.result import FramesResult, GenerationResult, LatentsResult, Result, returned

KNOWN = {"seed": 3, "timings": {"total": 1.0}, "peak_memory": {}}
RESULTS = (
    GenerationResult(**KNOWN, path=Path("v.mp4"), num_frames=9, fps=8),
    FramesResult(**KNOWN, frames=np.zeros((9, 8, 8, 3), np.uint8)),
    LatentsResult(**KNOWN, latents=torch.zeros(3, 1, 1, 16)),
)


@pytest.mark.parametrize("result", RESULTS, ids=lambda result: type(result).__name__)
def test_nothing_can_be_set(result):
    assert isinstance(result, Result)
    for field in dataclasses.fields(result):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(result, field.name, None)


def test_nothing_can_be_left_out():
    for kind in (GenerationResult, FramesResult, LatentsResult):
        with pytest.raises(TypeError, match="missing"):
            kind(**KNOWN)


def test_a_result_can_be_printed_as_a_mapping():
    """As `--json` does."""
    assert dataclasses.asdict(RESULTS[0]) == {**KNOWN, "path": Path("v.mp4"), "num_frames": 9, "fps": 8}


def test_what_a_call_returns():
    """A file's result as it is, and what is in the others."""
    file, frames, latents = RESULTS
    assert returned([file], one=True, flat=False) is file
    assert returned([frames], one=True, flat=False) is frames.frames
    assert returned([latents, latents], one=False, flat=False) == [latents.latents] * 2
    assert returned([file], one=False, flat=False) == [file]  # a list of one prompt


def test_images_are_one_list():
    image = Image.new("RGB", (8, 8))
    results = [FramesResult(**KNOWN, frames=[image]) for _ in range(3)]
    assert returned(results, one=False, flat=True) == [image] * 3
    assert returned(results, one=False, flat=False) == [[image]] * 3
