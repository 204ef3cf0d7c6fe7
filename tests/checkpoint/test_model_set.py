"""A model set's own file: what it allows, what is refused, and that sizes nobody asked for come from it."""

import dataclasses
import json

import pytest
from helpers import own_weights

from kandinsky.checkpoint.model_set import NAME, read_model_set
from kandinsky.cli.main import main
from kandinsky.config import FLASH_512
from kandinsky.factory import get_T2V_pipeline
from kandinsky.video_shape import VideoShape

OWN = dataclasses.replace(FLASH_512, resolution=128, sizes=((64, 64), (64, 96)), max_seconds=1, text_tokens=24)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return own_weights(tmp_path_factory.mktemp("weights"), OWN)


def test_written_and_read(weights, tmp_path):
    assert read_model_set(weights) == OWN
    assert read_model_set(tmp_path) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": []}, r"sizes=\[\]: allowed are pairs"),
        ({"sizes": [[64, 100]]}, "multiples of 16"),
        ({"sizes": [[64]]}, "allowed are pairs"),
        ({"fps": 0}, "fps=0: allowed is a whole number from 1"),
        ({"text_tokens": True}, "text_tokens=True"),
        ({"colour": 1}, "allowed and needed are the keys"),
    ],
)
def test_what_is_refused(weights, tmp_path, change, message):
    values = json.loads((weights / NAME).read_text()) | change
    (tmp_path / NAME).write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message):
        read_model_set(tmp_path)


def test_not_json(tmp_path):
    (tmp_path / NAME).write_text("{")
    with pytest.raises(ValueError, match="not JSON"):
        read_model_set(tmp_path)


def test_sizes_nobody_asked_for():
    own = VideoShape.from_request(None, None, None, model_set=OWN)
    assert (own.seconds, own.height, own.width) == (1, 64, 64)
    published = VideoShape.from_request(None, None, None)
    assert (published.seconds, published.height, published.width) == (12, 512, 512)
    assert VideoShape.from_request(1, 96, None, model_set=OWN).height == 64


def test_pipeline_takes_the_sets_sizes(weights):
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    assert pipe.model_set == OWN
    assert pipe("a cat", output_type="latent", seed=1).shape == (3, 8, 8, 16)
    with pytest.raises(ValueError, match="allowed width x height: 64x64, 96x64"):
        pipe("a cat", width=672, height=384)
    with pytest.raises(ValueError, match=r"0 \(an image\) to 1 seconds"):
        pipe("a cat", time_length=2)


def test_command_takes_the_sets_sizes(weights, tmp_path, capsys):
    arguments = ["generate", "--weights", str(weights), "--device", "cpu", "--no-progress"]
    assert main([*arguments, "--time-length", "0", "--save-path", str(tmp_path / "a.png")]) == 0
    assert "64x64" in capsys.readouterr().out
    assert main([*arguments, "--width", "672", "--height", "384"]) == 2
    assert "allowed width x height: 64x64, 96x64" in capsys.readouterr().err
