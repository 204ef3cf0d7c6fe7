"""The VAE alone, as latents of an unfinished video name it."""

import pytest
import torch
from helpers import SMALL, TINY

from kandinsky.config import FLASH_512
from kandinsky.loading.finisher import load_finisher, model_set_beside
from kandinsky.output.unfinished import VaeSource

SOURCE = VaeSource(str(TINY / "vae"), "cpu", "bfloat16", memory_saving=True)


def test_the_vae_that_was_used():
    finisher = load_finisher(SOURCE, progress=False)
    assert finisher.vae.memory_saving
    assert finisher.vae.device == torch.device("cpu")
    assert finisher.model_set == FLASH_512


def test_another_folder_and_device(small_weights):
    finisher = load_finisher(SOURCE, weights=small_weights, device="cpu", progress=False)
    frames = finisher.frames(torch.zeros(1, 8, 8, 16), "np")
    assert frames.shape == (1, 64, 64, 3)
    assert finisher.model_set == model_set_beside(None, small_weights) == SMALL


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no VAE at .*; name the folder of the weights with --weights"):
        load_finisher(SOURCE, weights=tmp_path)
    with pytest.raises(ValueError, match="weights=None: the VAE is not known"):
        load_finisher(None, device="cpu")
    with pytest.raises(ValueError, match="device='gpu' is not a device"):
        load_finisher(SOURCE, device="gpu")
