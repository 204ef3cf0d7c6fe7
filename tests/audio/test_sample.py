"""The sampler and the decoder against what the published code computed (float32, CPU)."""

import pytest
import torch
from audio_helpers import SCHEDULER, golden_tensors, golden_unet, golden_vae
from helpers import relative_error

from kandinsky.audio.sample import decode, make_scheduler, sample


@pytest.mark.slow
def test_golden_latents_of_20_steps():
    given = golden_tensors()
    with torch.inference_mode():
        latents = sample(
            golden_unet(),
            make_scheduler(SCHEDULER, 20),
            given["latents_in"],
            text=given["text"].float(),
            video=given["video"].float(),
            guidance_scale=8,
        )
    assert relative_error(latents, given["latents_20_steps"]) < 1e-4


def test_golden_picture():
    given = golden_tensors()
    with torch.inference_mode():
        picture = decode(golden_vae(), given["latents_20_steps"])
    off = (picture.int() - given["spectrogram_image"].int()).abs()
    assert picture.dtype == torch.uint8
    assert (off <= 1).double().mean() >= 0.999
