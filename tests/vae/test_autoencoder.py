"""Encoding against diffusers, and the way there and back."""

import shutil

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from helpers import TINY
from safetensors.torch import load_file, save_file
from vae_helpers import latents_of, relative_error, tiny_autoencoder

from kandinsky.checkpoint.random_weights import SIZES
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_vae
from kandinsky.vae.autoencoder import VideoAutoencoder
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.shapes import decoder_shapes


@pytest.fixture(scope="module")
def vae():
    return VideoAutoencoder.from_diffusers(tiny_autoencoder())


@pytest.mark.parametrize(("frames", "latents"), [(1, 1), (9, 3), (17, 5)])
def test_encode_equals_diffusers(vae, frames, latents):
    pixels = torch.randint(0, 256, (frames, 32, 48, 3), dtype=torch.uint8)
    found = vae.encode(pixels)
    x = (pixels.float() / 127.5 - 1).permute(3, 0, 1, 2)[None]
    with torch.no_grad():
        expected = vae.autoencoder.encode(x).latent_dist.mode()[0].permute(1, 2, 3, 0) * 0.7
    assert found.shape == (latents, 4, 6, 16)
    assert relative_error(found, expected) < 1e-6


@pytest.mark.parametrize("size", ["tiny", "full"])
def test_shapes_are_diffusers_own(size):
    with torch.device("meta"):
        module = AutoencoderKLCogVideoX(**SIZES[size].vae, latent_channels=16)
    expected = {name: tuple(value.shape) for name, value in module.decoder.state_dict().items()}
    assert decoder_shapes(DecoderConfig.from_mapping(module.config)) == expected


def test_weights_that_do_not_fit_are_named(tmp_path):
    folder = shutil.copytree(TINY / "vae", tmp_path / "vae")
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    del tensors["decoder.conv_in.conv.bias"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=r"1 missing, first 'decoder\.conv_in\.conv\.bias'"):
        load_vae(folder, device=torch.device("cpu"), dtype=torch.float32)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKLCogVideoX"}')
    with pytest.raises(CheckpointError, match=r"config\.json lacks 'temporal_compression_ratio'"):
        load_vae(folder, device=torch.device("cpu"), dtype=torch.float32)


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
