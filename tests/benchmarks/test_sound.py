"""The figures of a sound, at tiny size."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run, tmp_path):
    target = tmp_path / "v.mp4"
    found = run("sound", "--save-path", str(target))
    assert target.is_file()
    assert set(found["seconds"]) == {"encode", "sample", "decode", "waveform", "write", "total"}
    assert all_positive(found["step_ms"], found["step_tflop"], found["step_limit_ms"], found["loudest"])
    assert found["same_sound_twice"]
    assert found["picture_unchanged"]
    assert found["sound_codec"] == "aac"
    assert abs(found["picture_s"] - found["sound_s"]) <= found["frame_s"]
    assert found["peak_gb"] == {}


def test_the_full_model_is_stable_diffusion_1s(script):
    import torch
    from torch import nn

    sound = script("sound")
    with torch.device("meta"):
        unet = sound.build_unet(sound.UNET["full"])

    def parameters(names: str) -> int:
        return sum(p.numel() for name, p in unet.named_parameters() if names in name)

    assert isinstance(unet, nn.Module)
    assert sum(p.numel() for p in unet.parameters()) - parameters(".processor.") == 859_520_964
