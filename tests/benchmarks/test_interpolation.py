"""Frames in between at tiny size."""

import numpy as np
import pytest
import torch
from benchmark_helpers import all_positive
from PIL import Image


@pytest.mark.slow
def test_figures(run, tmp_path):
    found = run("interpolation", "--strips", str(tmp_path))
    assert set(found["quality"]["drawn"]) == {"hold", "average", "ffmpeg", "network"}
    assert all_positive(found["quality"])
    assert found["plain"]["frames"] == 9
    assert {way: smooth["frames"] for way, smooth in found["smooth"].items()} == {"ffmpeg": 25, "network": 25}
    assert all_positive(found["plain"]["seconds"], *(smooth["seconds"] for smooth in found["smooth"].values()))
    assert Image.open(tmp_path / "drawn.png").size == (3 * 96, 4 * 64)


def test_measures(script):
    module = script("interpolation")
    frames = np.random.default_rng(0).integers(10, 240, (2, 32, 32, 3), dtype=np.uint8)
    cpu = torch.device("cpu")
    assert module.ssim(frames, frames, cpu) == pytest.approx(1)
    assert module.psnr(frames, frames) == 100
    assert module.psnr(frames + 1, frames) == pytest.approx(20 * np.log10(255))
    assert module.ssim(255 - frames, frames, cpu) < 0
