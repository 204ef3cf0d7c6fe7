"""Weights from files to a pipeline: what finding, loading, planning and finishing do together."""

import dataclasses
import shutil
import warnings

import pytest
import torch
from checkpoint_helpers import CPU, NAME, dit_state, tiny_copy
from helpers import SMALL, TINY
from safetensors.torch import load_file, save_file

from kandinsky import Kandinsky4T2VPipeline, get_T2V_pipeline
from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import CHANGED_BYTES, open_checkpoint
from kandinsky.checkpoint.locate import locate
from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.config import FLASH_512, MODULES
from kandinsky.loading.finisher import load_finisher, model_set_beside
from kandinsky.loading.settings import settings_of
from kandinsky.memory.needs import needs_from
from kandinsky.model.precision import EXACT
from kandinsky.video_shape import VideoShape

OWN = dataclasses.replace(SMALL, text_tokens=24, max_seconds=2)


@pytest.fixture
def weights(tmp_path):
    return tiny_copy(tmp_path / "w")


def settings(**arguments):
    return settings_of("cpu", local_files_only=True, progress=False, **arguments)


def test_a_saved_pipeline_comes_back_as_it_was(weights, tmp_path):
    write_model_set(weights, OWN)
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    pipe.save_pretrained(tmp_path / "saved")
    again = Kandinsky4T2VPipeline.from_pretrained(tmp_path / "saved", device_map="cpu", progress=False)
    assert again.model_set == OWN
    call = {"seed": 3, "output_type": "latent"}
    assert torch.equal(again("a cat", **call), pipe("a cat", **call))


def test_a_dit_of_another_folder_brings_what_it_was_trained_for(weights, small_weights):
    dit = weights / f"{NAME}.pt"
    assert settings(cache_dir=small_weights, dit_path=dit).model_set == SMALL
    write_model_set(weights, OWN)
    assert settings(cache_dir=small_weights, dit_path=dit).model_set == OWN
    assert settings(cache_dir=TINY, conf_path=conf_of(weights)).model_set == OWN
    assert settings(cache_dir=small_weights).model_set == SMALL
    assert settings(cache_dir=TINY).model_set == FLASH_512


def conf_of(weights):
    (weights / "conf.yaml").write_text(f"dit: {{checkpoint_path: {weights / NAME}.pt}}")
    return weights / "conf.yaml"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_room_for_another_dtype_is_planned(weights, dtype):
    """On the device are the weights in the dtype that they run in; while they are loaded, some in the file's too."""
    state = {name: value.to(dtype) for name, value in dit_state().items()}
    torch.save(state, weights / f"{NAME}.pt")
    needs = {}
    for folder in (TINY, weights):
        paths = locate(folder, model_set=FLASH_512, given={}, local_files_only=True, revision={})
        shape = VideoShape.from_request(0, 64, 64, model_set=SMALL)
        needs[folder] = needs_from(paths, dict.fromkeys(MODULES, torch.bfloat16), text_tokens=8)(shape, EXACT)
    published, other = (needs[folder].components for folder in (TINY, weights))
    extra = 0 if dtype == torch.bfloat16 else sum(value.nbytes for value in state.values())
    assert extra < CHANGED_BYTES
    expected = dataclasses.replace(published["dit"], loading=published["dit"].loading + extra, in_file=extra == 0)
    assert other["dit"] == expected
    assert (other["vae"], other["text_embedder"]) == (published["vae"], published["text_embedder"])


def test_what_is_not_part_of_t5_is_not_planned_for(weights):
    """Whole T5 models have a decoder, whose blocks are named alike."""
    paths = locate(weights, model_set=FLASH_512, given={}, local_files_only=True, revision={})
    names = {"text_embedder": torch.bfloat16}
    shape = VideoShape.from_request(0, 64, 64, model_set=SMALL)
    before = needs_from(paths, names, text_tokens=8)(shape, EXACT)
    state = load_file(weights / "text_encoder" / "model.safetensors")
    decoder = {name.replace("encoder.", "decoder."): value + 0 for name, value in state.items() if "encoder." in name}
    save_file({**state, **decoder}, weights / "text_encoder" / "model.safetensors")
    assert needs_from(paths, names, text_tokens=8)(shape, EXACT) == before
    with pytest.warns(UserWarning, match=f"left out: {len(decoder)} tensors, first 'decoder"):
        pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    assert pipe.encode("a cat").shape == (224, 64)


def test_another_vae_than_the_latents_are_of(weights):
    mark = fingerprint(open_checkpoint(TINY / "vae"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_finisher(None, weights=weights, device="cpu", fingerprint=mark, progress=False)
        load_finisher(None, weights=weights, device="cpu", progress=False)
    path = weights / "vae" / "diffusion_pytorch_model.safetensors"
    state = load_file(path)
    state["decoder.conv_in.conv.bias"] += 1
    save_file(state, path)
    with pytest.warns(UserWarning, match=r"vae is not the VAE that these latents were sampled for"):
        load_finisher(None, weights=weights, device="cpu", fingerprint=mark, progress=False)


def test_a_finisher_knows_its_model_set(weights):
    write_model_set(weights, OWN)
    assert model_set_beside(None, weights) == OWN


def test_an_encoder_that_is_loaded_later_is_the_one_that_was_found(weights):
    """The VAE's encoder is read when it is first used, the folder may hold another by then."""
    pipe = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    expected = load_file(weights / "vae" / "diffusion_pytorch_model.safetensors")["encoder.conv_in.conv.bias"].float()
    other = {name: value + 1 for name, value in load_file(TINY / "vae" / "diffusion_pytorch_model.safetensors").items()}
    save_file(other, weights / "new.safetensors")
    shutil.move(weights / "new.safetensors", weights / "vae" / "diffusion_pytorch_model.safetensors")
    assert torch.equal(pipe.vae.autoencoder.encoder.conv_in.conv.bias.to(CPU), expected)
