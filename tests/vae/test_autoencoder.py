"""Encoding against diffusers, the way there and back, and what decoding is handed in."""

import copy
from itertools import pairwise

import pytest
import torch
from helpers import relative_error
from vae_helpers import latents_of

from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.rows import Whole


@pytest.fixture(scope="module")
def vae(autoencoder):
    return VideoAutoencoder.from_diffusers(autoencoder)


@pytest.fixture(scope="module")
def pixels():
    return torch.randint(0, 256, (9, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (9, 3), (17, 5)])
def test_encode_equals_diffusers(vae, pixels, frames, latents):
    pixels = pixels.repeat(2, 1, 1, 1)[:frames]
    found = vae.encode(pixels)
    x = (pixels.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        expected = vae.autoencoder.encode(x).latent_dist.mode()[0].permute(1, 2, 3, 0) * 0.7
    assert found.shape == (latents, 2, 3, 16)
    assert relative_error(found, expected) < 1e-6


def test_a_staged_encoder_is_on_the_host_again(autoencoder, pixels):
    staged = VideoAutoencoder.from_diffusers(copy.deepcopy(autoencoder), staged=True)
    before = [weight.data_ptr() for weight in staged.autoencoder.encoder.parameters()]
    assert torch.equal(staged.encode(pixels), VideoAutoencoder.from_diffusers(autoencoder).encode(pixels))
    assert [weight.data_ptr() for weight in staged.autoencoder.encoder.parameters()] == before


def test_encode_draws_with_a_generator(vae, pixels):
    first, second, other = (vae.encode(pixels, generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


def test_what_is_decoded_can_be_encoded(vae):
    latents = latents_of(3, 2, 3)
    assert vae.encode(torch.cat(list(vae.decode(latents)))).shape == latents.shape


@pytest.mark.parametrize("shape", [(2, 32, 48, 3), (9, 30, 48, 3), (9, 32, 48, 4)])
def test_what_cannot_be_encoded_is_named(vae, shape):
    with pytest.raises(ValueError, match=r"allowed: uint8 \[4 n \+ 1, multiple of 8, multiple of 8, 3\]"):
        vae.encode(torch.zeros(shape, dtype=torch.uint8))


def test_ways_to_decode_give_the_same(vae, autoencoder):
    """Halos on the host, weights that come for a clip, frames on the host."""
    latents = latents_of(4, 2, 3)
    expected = torch.cat(list(vae.decode(latents)))
    staged = VideoAutoencoder.from_diffusers(autoencoder, staged=True)
    for chunks in (
        vae.decode(latents, memory_saving=True),
        VideoAutoencoder.from_diffusers(autoencoder, memory_saving=True).decode(latents),
        staged.decode(latents),
        staged.decode(latents),
        (chunk.clone() for chunk in vae.frames(latents)),
    ):
        assert torch.equal(torch.cat(list(chunks)), expected)


def test_rows_are_asked_for_what_is_decoded(autoencoder):
    """By the number of latent rows; what they collect is what comes out."""

    class Upper(Whole):
        rows = slice(0, 1)

        def collect(self, frames, *, everywhere):
            return None if everywhere or len(frames) == 9 else frames

    asked = []
    vae = VideoAutoencoder.from_diffusers(autoencoder, rows_of=lambda count: asked.append(count) or Upper())
    chunks = list(vae.decode(latents_of(5, 2, 3)))
    assert asked == [2]
    assert [chunk.shape for chunk in chunks] == [(8, 8, 24, 3)]
    nobody = VideoAutoencoder.from_diffusers(autoencoder, rows_of=lambda _: None)
    assert list(nobody.decode(latents_of(5, 2, 3))) == []


def test_the_encoder_is_opened_once_and_only_when_it_is_needed(autoencoder, pixels):
    opened = []
    config = DecoderConfig.from_mapping(autoencoder.config)
    state = autoencoder.decoder.state_dict()
    vae = VideoAutoencoder(config, state, lambda: opened.append(1) or autoencoder, device=torch.device("cpu"))
    list(vae.decode(latents_of(1, 2, 3)))
    assert opened == []
    first, second = vae.encode(pixels), vae.encode(pixels)
    assert opened == [1]
    assert torch.equal(first, second)


def test_chunks_come_one_by_one(vae):
    """Memory does not grow with the length: each chunk is decoded when it is asked for, into memory of its own."""
    chunks = list(vae.decode(latents_of(6, 2, 3)))
    assert [len(chunk) for chunk in chunks] == [8, 8, 8]
    assert all(one.data_ptr() != other.data_ptr() for one, other in pairwise(chunks))


@pytest.mark.parametrize("staged", [False, True])
def test_without_triton_the_plain_operations_decode(autoencoder, monkeypatch, staged):
    """Nothing is looked for on the device."""

    def unasked(*_arguments, **_settings):
        raise AssertionError

    monkeypatch.setattr("kandinsky.vae.decoder.best_ops", unasked)
    vae = VideoAutoencoder.from_diffusers(autoencoder, kernels="torch", staged=staged)
    assert sum(len(chunk) for chunk in vae.decode(latents_of(2, 2, 3))) == 8


@pytest.mark.gpu
@pytest.mark.parametrize("staged", [False, True])
def test_a_warm_up_changes_nothing(autoencoder, staged):
    moved = copy.deepcopy(autoencoder).to("cuda")
    vae, warm = (VideoAutoencoder.from_diffusers(moved, staged=staged) for _ in range(2))
    warm.warm_up()
    assert all(map(torch.equal, vae.decode(latents_of(5, 2, 3)), warm.decode(latents_of(5, 2, 3))))
