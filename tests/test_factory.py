"""`get_T2V_pipeline` has the published signature, and hands every argument on."""

import inspect

import torch
from helpers import TINY

from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.settings import settings_of
from kandinsky.pipeline import Kandinsky4T2VPipeline

PUBLISHED = (
    "device_map", "resolution", "cache_dir", "dit_path", "text_encoder_path", "tokenizer_path", "vae_path",
    "scheduler_path", "conf_path",
)  # fmt: skip


def test_arguments_are_those_of_the_settings():
    """With the same defaults, so that a call and a loader of its own mean the same."""
    ours, theirs = inspect.signature(get_T2V_pipeline).parameters, inspect.signature(settings_of).parameters
    assert tuple(ours)[: len(PUBLISHED)] == PUBLISHED
    assert {name: parameter.default for name, parameter in ours.items()} == {
        name: parameter.default for name, parameter in theirs.items()
    }
    documented = inspect.getdoc(get_T2V_pipeline) or ""
    assert all(name in documented for name in ours)


def test_arguments_reach_their_place(tmp_path):
    pipe = get_T2V_pipeline(
        "cpu", cache_dir=TINY, vae_memory_saving=True, dtype=torch.bfloat16, prompt_cache=tmp_path, progress=False
    )
    assert isinstance(pipe, Kandinsky4T2VPipeline)
    assert pipe.vae is not None
    assert pipe.vae.memory_saving
    assert pipe.dit.dtype == torch.bfloat16
    assert pipe.text_encoder.folder == tmp_path
    assert not pipe.progress
