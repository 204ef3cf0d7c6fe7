"""The VAE alone, to finish what another process sampled."""

import shutil
import warnings
from dataclasses import replace

import pytest
import torch
from helpers import SMALL, TINY, own_weights
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.pending import SAVED
from kandinsky.checkpoint.replace_set import settle
from kandinsky.config import FLASH_512, PRECISIONS
from kandinsky.errors import CheckpointError
from kandinsky.loading.finisher import load_finisher, model_set_beside
from kandinsky.output.unfinished import VaeSource
from kandinsky.vae import float8
from kandinsky.vae.norm import PlainOps

SOURCE = VaeSource(str(TINY / "vae"), "cpu", "bfloat16", memory_saving=True)


def test_the_vae_that_the_sampling_process_had():
    finisher = load_finisher(SOURCE, progress=False)
    assert finisher.vae.device == torch.device("cpu")
    assert finisher.vae.memory_saving
    assert finisher.vae.autoencoder.dtype == torch.bfloat16
    assert finisher.model_set == FLASH_512
    assert finisher.alone
    assert not finisher.progress


def test_kernels_are_those_of_the_sampling_process():
    """Finished later, the frames are the same bits."""
    plain = load_finisher(replace(SOURCE, kernels="torch"), progress=False)
    assert plain.vae._ops == PlainOps()
    assert load_finisher(SOURCE, progress=False).vae._ops is None


def test_precision_is_that_of_the_sampling_process(monkeypatch):
    """As a card decodes that has a kernel for it."""
    monkeypatch.setattr(float8, "kernel_on", lambda _device: float8.emulated)
    monkeypatch.setattr(float8, "CHANNELS", 16)
    latents = torch.randn(2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    decoded = {
        precision: torch.cat(
            list(load_finisher(replace(SOURCE, precision=precision), progress=False).vae.decode(latents))
        )
        for precision in PRECISIONS
    }
    assert not torch.equal(decoded["exact"], decoded["fast"])
    assert torch.equal(decoded["exact"], torch.cat(list(load_finisher(SOURCE, progress=False).vae.decode(latents))))


def test_another_device_has_its_own_dtype():
    finisher = load_finisher(SOURCE, device="cpu", progress=False)
    assert finisher.vae.autoencoder.dtype == torch.float32


def test_weights_that_are_named_win(tmp_path):
    """Of them the VAE alone is needed; what they declare counts."""
    weights = own_weights(tmp_path / "w", SMALL)
    for path in weights.iterdir():
        if path.name not in ("vae", "model_set.json"):
            path.unlink()
    lost = VaeSource("/nowhere/vae", "cpu", "float32", memory_saving=False)
    assert load_finisher(lost, weights=weights, progress=False).model_set == SMALL
    assert load_finisher(None, weights=str(weights), device="cpu", progress=False).model_set == SMALL
    assert model_set_beside(lost, weights) == SMALL
    assert model_set_beside(SOURCE, None) == FLASH_512


def test_a_vae_that_was_just_saved(tmp_path):
    """Parts that are not in their places yet go before the old ones; a file may say either place."""
    weights = own_weights(tmp_path / "w", SMALL)
    new = own_weights(tmp_path / "w" / SAVED, replace(SMALL, max_seconds=2))
    (new / "vae").unlink()
    shutil.copytree(TINY / "vae", new / "vae")
    (file,) = (new / "vae").glob("*.safetensors")
    state = load_file(file)
    state["decoder.conv_in.conv.bias"] += 1
    save_file(state, file)
    mark = fingerprint(open_checkpoint(new / "vae"))
    sources = [VaeSource(str(folder / "vae"), "cpu", "float32", memory_saving=False) for folder in (weights, new)]
    for settled in (False, True):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for source, named in ((sources[0], None), (sources[1], None), (None, weights)):
                finisher = load_finisher(source, weights=named, device="cpu", fingerprint=mark, progress=False)
                assert finisher.model_set.max_seconds == 2
        if not settled:
            settle(weights)
            assert not new.exists()


def test_what_is_not_there():
    lost = VaeSource("/nowhere/vae", "cpu", "float32", memory_saving=False)
    with pytest.raises(FileNotFoundError, match="no VAE at /nowhere/vae; name the folder of the weights with"):
        load_finisher(lost)
    with pytest.raises(ValueError, match="weights=None: the VAE is not known; name the folder of the weights"):
        load_finisher(None, device="cpu")
    with pytest.raises(ValueError, match="device='cuda:99' does not exist"):
        load_finisher(SOURCE, device="cuda:99")
    with pytest.raises(ValueError, match="weights=3: allowed is a path of text"):
        load_finisher(None, weights=3, device="cpu")


def test_a_damaged_vae(tmp_path):
    shutil.copytree(TINY / "vae", tmp_path / "vae")
    (file,) = (tmp_path / "vae").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is truncated"):
        load_finisher(None, weights=tmp_path, device="cpu", progress=False)


def test_another_vae_than_the_latents_were_sampled_for_is_warned_of():
    right = fingerprint(open_checkpoint(TINY / "vae"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_finisher(SOURCE, fingerprint=right, progress=False)
    with pytest.warns(UserWarning, match="vae is not the VAE that these latents were sampled for"):
        load_finisher(SOURCE, fingerprint="0123", progress=False)
