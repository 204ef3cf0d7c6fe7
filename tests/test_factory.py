"""`get_T2V_pipeline`: the published signature, and nothing between it and the settings."""

import inspect
import types

import pytest
import torch
from fakes import changed
from helpers import TINY

from kandinsky.errors import CheckpointError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.settings import settings_of

DEVICES = dict.fromkeys(("dit", "vae", "text_embedder"), "cpu")
PUBLISHED = [
    "device_map", "resolution", "cache_dir", "dit_path", "text_encoder_path", "tokenizer_path", "vae_path",
    "scheduler_path", "conf_path",
]  # fmt: skip


def test_arguments_are_those_of_the_settings():
    ours, theirs = (inspect.signature(function).parameters for function in (get_T2V_pipeline, settings_of))
    assert list(ours)[: len(PUBLISHED)] == PUBLISHED
    assert [*ours.values()] == [value for name, value in theirs.items() if name != "repository"]
    described = inspect.getdoc(get_T2V_pipeline)
    assert all(name in described for name in ours)


def test_arguments_arrive():
    """Each one that a pipeline shows."""
    pipe = get_T2V_pipeline(
        "cpu",
        512,
        TINY,
        TINY / "kandinsky4_distil_512.pt",
        attention="torch",
        kernels="torch",
        vae_memory_saving=True,
        text_encoder_int8=True,
        prompt="a cat",
        dtype=torch.bfloat16,
        parallelism="sequence",
        local_files_only=True,
        revision="main",
        progress=False,
    )
    found = pipe.origin
    assert (found.attention, found.kernels, found.dtype) == ("torch", "torch", "bfloat16")
    assert (found.parallelism, found.processes) == ("none", 1)  # of one process
    assert found.vae_memory_saving
    assert found.text_encoder_int8
    assert pipe.vae.memory_saving
    assert not pipe.progress


def test_device_map_is_left_as_it_is():
    given = {**DEVICES, "vae": torch.device("cpu")}
    before = dict(given)
    settings_of(types.MappingProxyType(given), cache_dir=TINY)
    assert given == before


def test_modules_are_where_the_map_says():
    pipe = get_T2V_pipeline(DEVICES, cache_dir=TINY, progress=False, dtype=torch.bfloat16)
    for module in (pipe.dit, pipe.vae.autoencoder, pipe.text_encoder.model):
        assert {parameter.device.type for parameter in module.parameters()} == {"cpu"}
        assert {parameter.dtype for parameter in module.parameters()} == {torch.bfloat16}


def test_layout_does_not_change_bits(pipe, small_weights):
    other = get_T2V_pipeline(DEVICES, cache_dir=small_weights, progress=False)
    call = {"time_length": 0, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}
    assert torch.equal(other("a cat", **call), pipe("a cat", **call))


def test_float32_on_a_cpu_by_default(pipe):
    assert pipe.dit.dtype == pipe.vae.autoencoder.dtype == pipe.text_encoder.model.dtype == torch.float32


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(ValueError, match="resolution=1024: allowed is 512"):
        get_T2V_pipeline("cpu", 1024, TINY)
    with pytest.raises(FileNotFoundError, match="weights are missing in"):
        get_T2V_pipeline("cpu", cache_dir=tmp_path, local_files_only=True)
    (tmp_path / "model_set.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"model_set\.json"):
        get_T2V_pipeline("cpu", cache_dir=tmp_path, local_files_only=True)


def test_a_pipeline_may_be_put_together_by_hand(pipe):
    """As nobody knows then how it was made, records do not say so."""
    by_hand = changed(pipe, origin=None, vae_source=None)
    assert by_hand("a cat", time_length=0, width=64, height=64, seed=3)[0].info["seed"] == 3
    assert by_hand.origin is None
