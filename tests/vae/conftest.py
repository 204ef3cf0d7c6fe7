"""A VAE that a CPU runs in a moment, and what diffusers decodes with it."""

from collections.abc import Callable
from functools import cache

import pytest
from diffusers import AutoencoderKLCogVideoX
from torch import Tensor
from vae_helpers import latents_of, smallest_autoencoder, their_frames

from kandinsky.vae.decoder import CausalDecoder


@pytest.fixture(scope="session")
def autoencoder() -> AutoencoderKLCogVideoX:
    return smallest_autoencoder()


@pytest.fixture(scope="session")
def decoder(autoencoder: AutoencoderKLCogVideoX) -> CausalDecoder:
    return CausalDecoder.from_diffusers(autoencoder)


@pytest.fixture(scope="session")
def theirs(autoencoder: AutoencoderKLCogVideoX) -> Callable[[int], Tensor]:
    """Frames that diffusers decodes `latents_of(frames, 2, 3)` to."""
    return cache(lambda frames: their_frames(autoencoder, latents_of(frames, 2, 3)))
