"""The UNet with its processors against what the published code computed (float32, CPU)."""

import torch
from audio_helpers import golden_tensors, golden_unet
from helpers import relative_error

from kandinsky.audio.unet import velocity


def test_golden_velocity():
    given = golden_tensors()
    with torch.inference_mode():
        out = velocity(
            golden_unet(),
            given["latents_in"].repeat(2, 1, 1, 1),
            501,
            text=given["text"].float(),
            video=given["video"].float(),
        )
    assert relative_error(out, given["unet_out"]) < 1e-5
