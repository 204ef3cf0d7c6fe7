"""Both decoders at tiny size, and the convolutions that ours makes."""

from collections import Counter

import pytest
import torch
from benchmark_helpers import all_positive

from kandinsky.vae import causal, float8
from kandinsky.vae.float8 import emulated


@pytest.mark.slow
def test_figures(run, monkeypatch):
    monkeypatch.setattr(float8, "kernel_on", lambda _device: emulated)  # as on a card that has a kernel
    monkeypatch.setattr(float8, "CHANNELS", 16)
    found = run("vae")
    assert all_positive(
        found["fast"]["seconds"], found["fast"]["memory_saving"]["seconds"], found["fast"]["kernels_ms"]
    )
    assert 1e-3 < found["fast"]["difference"] < 0.1
    keys = ("first_call_seconds", "kernels_ms", "convolution_floor_seconds", "share_of_floor")
    assert all_positive(*(found[key] for key in keys))
    assert all_positive(found["ours"]["seconds"], found["memory_saving"]["seconds"], found["diffusers"]["seconds"])
    assert all_positive(found["ours"]["first_chunk_seconds"], found["accuracy"]["reference_std"])
    assert found["accuracy"]["our_error"] < 1e-5
    # Two in each of ten resnets, one more for each of the two that see doubled time, four in each of three upsamplings.
    assert found["convolutions_of_a_chunk"]["calls"] == 2 * 10 + 2 + 4 * 3 + 2
    assert all_positive(found["convolutions_of_a_chunk"])
    assert "convolutions" in found["kernels_ms"]
    assert found["ours"]["peak_gib"] is found["long_peak_gib"] is None


def test_convolutions_are_read_off_what_runs(script):
    module = script("vae_convolutions")
    shapes = module.Convolution
    wanted = [shapes((4, 6, 8, 16), (24, 16, 3, 3, 3)), shapes((4, 6, 8, 16), (32, 16, 2, 2))]
    wanted += [shapes((3, 4, 6, 16), (48, 16, 2, 6, 6))] * 2

    def run():
        for one in wanted:
            x, kernel = torch.randn(one.x), torch.randn(one.kernel)
            causal.convolve(x, kernel, torch.empty(one.out), border=0)

    assert module.convolutions(run) == Counter(wanted)


@pytest.mark.parametrize(
    ("x", "kernel", "flop"),
    [
        ((10, 8, 12, 16), (32, 16, 3, 3, 3), 2 * 8 * 8 * 12 * 32 * 16 * 27),
        ((8, 8, 12, 16), (16, 16, 2, 2), 2 * 8 * 8 * 12 * 16 * 16 * 4),
        ((10, 64, 96, 16), (48, 16, 3, 6, 6), 2 * 8 * 64 * 96 * 3 * 16 * 27),
    ],
)
def test_work_of_a_convolution(script, x, kernel, flop):
    assert script("vae_convolutions").Convolution(x, kernel).tflop == pytest.approx(flop / 1e12)
