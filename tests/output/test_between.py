"""Latents to frames, with frames between them."""

import numpy as np
import pytest
import torch
from fakes import SMALL_LATENTS, QuickVae

from kandinsky.output.between import smoothed
from kandinsky.output.options import OutputOptions, output_of


def output(**options):
    return output_of(None, OutputOptions(type="np", **options), is_image=False, model_fps=8)[0]


def made(vae, wanted):
    return np.concatenate([chunk.copy() for chunk in smoothed(vae, SMALL_LATENTS, wanted, memory_saving=None)])


@pytest.mark.parametrize("way", ["network", "ffmpeg"])
def test_decoded_frames_stay(pipe, way):
    plain = made(pipe.vae, output())
    smooth = made(pipe.vae, output(interpolate=3, interpolate_with=way))
    assert len(plain) == 9
    assert len(smooth) == 25
    assert np.array_equal(smooth[::3], plain)


def test_nothing_asked_nothing_made():
    assert np.array_equal(made(QuickVae(), None), made(QuickVae(), output()))


@pytest.mark.gpu
def test_on_a_gpu_beside_the_decoder(small_weights):
    """Frames stay, in videos of several chunks, and so does memory."""
    from kandinsky.loading.components import load_vae

    vae = load_vae(small_weights / "vae", device=torch.device("cuda"), dtype=torch.bfloat16, progress=False)
    wanted, peaks = output(interpolate=4, interpolate_with="network"), []
    for count in (9, 9, 33):
        latents = torch.randn(count, 8, 8, 16, generator=torch.Generator().manual_seed(count))
        torch.cuda.reset_peak_memory_stats()
        smooth = [chunk.copy() for chunk in smoothed(vae, latents, wanted, memory_saving=None)]
        peaks.append(torch.cuda.max_memory_allocated())
        plain = np.concatenate([chunk.numpy().copy() for chunk in vae.frames(latents)])
        assert np.array_equal(np.concatenate(smooth)[::4], plain)
    assert peaks[2] <= peaks[1] + 2**20
