"""What was sampled before, finished by one process; by a group in `test_group.py`."""

from dataclasses import replace

import pytest
from fakes import DisturbedVae, changed

from kandinsky.errors import DecodeError
from kandinsky.output.remaining import remaining_of
from kandinsky.serving.rest import finish_rest

SIZE = {"time_length": 1, "width": 64, "height": 64}


def test_the_file_is_that_of_an_undisturbed_call(pipe, tmp_path):
    pipe("a cat", tmp_path / "v.mp4", seed=3, **SIZE)
    broken = changed(pipe, vae=DisturbedVae(pipe.vae, lambda _: 1 / 0))
    with pytest.raises(DecodeError):
        broken("a cat", tmp_path / "again.mp4", seed=3, **SIZE)
    remaining = remaining_of(tmp_path / "again.latents.safetensors", model_set=pipe.model_set)
    result = finish_rest(pipe, remaining)
    assert result is not None
    assert result.path.read_bytes() == (tmp_path / "v.mp4").read_bytes()
    with pytest.raises(ValueError, match="allowed for this VAE"):
        finish_rest(pipe, replace(remaining, latents=remaining.latents[..., :4]))
