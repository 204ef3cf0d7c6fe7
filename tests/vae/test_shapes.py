"""Names and shapes of the decoder's tensors, with which a checkpoint is checked."""

import shutil

import pytest
import torch
from diffusers import AutoencoderKLCogVideoX
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.random_weights import SIZES
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_vae
from kandinsky.vae.decoder_weights import DecoderConfig
from kandinsky.vae.shapes import decoder_shapes

SETTINGS = {"device": torch.device("cpu"), "dtype": torch.float32}


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
        load_vae(folder, **SETTINGS)
    (folder / "config.json").write_text('{"_class_name": "AutoencoderKLCogVideoX"}')
    with pytest.raises(CheckpointError, match=r"config\.json lacks 'temporal_compression_ratio'"):
        load_vae(folder, **SETTINGS)
