"""The encoder: what is asked of it, and code that nobody vouched for.

transformers loads a small encoder here as it would the published one: by Python code in its folder.
"""

import json

import pytest
import torch
from audio_helpers import save_encoder

from kandinsky.audio.encoder import check_own_code, check_revision, check_trust, load_encoder
from kandinsky.errors import CheckpointError

CPU = {"device": torch.device("cpu"), "dtype": torch.float32}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder") / "small")


def test_embeddings_of_a_video_and_a_prompt(folder):
    """Second-to-last hidden states of each kind of token, of the small model that tells what it was given."""
    encoder = load_encoder(folder, **CPU)
    video = torch.arange(6, dtype=torch.uint8)[None, :, None, None].expand(3, 6, 4, 4)
    text, seen = encoder(video, "rain and")
    assert text.shape == (100, 4096)
    assert seen.shape == (6, 4096)
    assert text[:9, 0].tolist() == [1.0, *map(float, map(ord, "rain and"))]  # its beginning and each letter
    assert not text[9:].any()
    assert seen[:, 0].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5, 5.5]  # of two tokens a frame: its level, and one more


def test_a_long_prompt_is_cut(folder):
    text, _ = load_encoder(folder, **CPU)(torch.zeros(3, 2, 4, 4, dtype=torch.uint8), "a" * 200)
    assert text.shape == (100, 4096)
    assert text[-1, 0] == ord("a")


def test_trust():
    check_trust(True)
    for said in (False, None, "yes", 1):
        with pytest.raises(ValueError, match="runs with all of your rights"):
            check_trust(said)


def test_revision():
    check_revision("0123456789abcdef" * 2 + "01234567")
    for name in (None, "main", "v1", "0123456", "g" * 40, "0" * 41):
        with pytest.raises(ValueError, match="at one commit only"):
            check_revision(name)


def test_code_from_elsewhere(folder, tmp_path):
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"]["AutoModelForCausalLM"] = "somebody/else--modeling.Model"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="takes its code from elsewhere"):
        check_own_code(tmp_path)
    check_own_code(folder)


def test_an_encoder_that_does_not_load(folder, tmp_path):
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"the encoder in .* does not load"):
        load_encoder(tmp_path, **CPU)
    with pytest.raises(FileNotFoundError):
        load_encoder(tmp_path / "nowhere", **CPU)


def test_other_channels(tmp_path):
    with pytest.raises(CheckpointError, match="has 32 channels, not 4096"):
        load_encoder(save_encoder(tmp_path / "narrow", channels=32), **CPU)
