"""Settings of x264 on a tiny clip."""

import pytest
from benchmark_helpers import all_positive


def test_figures(run, script, monkeypatch):
    encoder = script("encoder")
    kept = ("medium (x264's default)", "in use")
    monkeypatch.setattr(encoder, "SETTINGS", {name: encoder.SETTINGS[name] for name in kept})
    found = run("encoder", "--interval", "1")
    assert set(found["rows"]) == set(kept)
    assert all_positive(found["limit_s"], found["cores"], found["rows"])
    assert all(row["psnr_db"] > 40 for row in found["rows"].values())


@pytest.mark.parametrize("name", ["synthetic_clip", "noise_clip"])
def test_clips(script, name):
    clip = getattr(script("encoder"), name)(17, 48, 32)
    assert clip.shape == (17, 32, 48, 3)
    assert clip.dtype.name == "uint8"
    assert (clip[0] != clip[1]).any()
