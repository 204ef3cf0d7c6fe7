"""Encoding against diffusers, and the way there and back."""

import pytest
import torch
from vae_helpers import latents_of, relative_error, tiny_autoencoder

from kandinsky.vae.autoencoder import VideoAutoencoder


@pytest.fixture(scope="module")
def vae():
    return VideoAutoencoder(tiny_autoencoder())


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (9, 3), (17, 5)])
def test_encode_equals_diffusers(vae, frames, latents):
    pixels = torch.randint(0, 256, (frames, 32, 48, 3), dtype=torch.uint8)
    found = vae.encode(pixels)
    x = (pixels.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        expected = vae.autoencoder.encode(x).latent_dist.mode()[0].permute(1, 2, 3, 0) * 0.7
    assert found.shape == (latents, 4, 6, 16)
    assert relative_error(found, expected) < 1e-6


def test_encode_draws_with_a_generator(vae):
    pixels = torch.randint(0, 256, (9, 32, 48, 3), dtype=torch.uint8)
    first, second, other = (vae.encode(pixels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_what_is_decoded_can_be_encoded(vae):
    latents = latents_of(3)
    assert vae.encode(torch.cat(list(vae.decode(latents)))).shape == latents.shape


@pytest.mark.parametrize("shape", [(2, 32, 48, 3), (9, 30, 48, 3), (9, 32, 48, 4)])
def test_what_cannot_be_encoded_is_named(vae, shape):
    with pytest.raises(ValueError, match=r"allowed: uint8 \[4 n \+ 1, multiple of 8, multiple of 8, 3\]"):
        vae.encode(torch.zeros(shape, dtype=torch.uint8))
