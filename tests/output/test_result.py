"""Results are complete when they are built, and of a type that tells what they hold."""

import dataclasses

import numpy as np
import pytest
import torch

from kandinsky.output.options import OutputOptions
from kandinsky.output.result import FramesResult, GenerationResult, LatentsResult
from kandinsky.request import request_of


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("file", GenerationResult), ("np", FramesResult), ("pil", FramesResult), ("latent", LatentsResult)],
)
def test_a_run_gives_a_result_of_its_kind(pipe, tmp_path, kind, expected):
    options = OutputOptions(type=kind)
    request = request_of("a cat", tmp_path / "v.mp4", 1, 1, 64, 64, 3, model_set=pipe.model_set, options=options)
    (result,) = pipe.run(request)
    assert type(result) is expected
    assert result.seed == 3
    assert set(result.timings) >= {"text", "sample", "total"}
    assert result.timings["total"] >= result.timings["sample"]
    assert result.peak_memory == {}
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.seed = 4


def test_what_they_hold(pipe, tmp_path):
    call = {"time_length": 1, "width": 64, "height": 64, "seed": 3}
    file = pipe("a cat", tmp_path / "v.mp4", **call)
    assert (file.path, file.num_frames, file.fps) == (tmp_path / "v.mp4", 9, 8)
    assert isinstance(pipe("a cat", output_type="np", **call), np.ndarray)
    assert isinstance(pipe("a cat", output_type="latent", **call), torch.Tensor)
