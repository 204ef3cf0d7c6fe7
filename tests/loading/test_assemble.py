"""Settings to parts: everything is there, and refused before a weight is read where it cannot be."""

import dataclasses

import pytest
import torch
from helpers import TINY

from kandinsky.loading.assemble import load_parts
from kandinsky.loading.settings import settings_of
from kandinsky.parallel.apply import check_size


@pytest.fixture(scope="module")
def settings():
    return settings_of("cpu", cache_dir=TINY, progress=False)


def test_parts_tell_where_they_come_from(settings):
    parts = load_parts(settings)
    assert parts.origin is not None
    assert parts.origin.devices == {"dit": "cpu", "vae": "cpu", "text_embedder": "cpu"}
    assert (parts.origin.precision, parts.origin.attention, parts.origin.kernels) == ("exact", "torch", "torch")
    assert (parts.origin.parallelism, parts.origin.processes) == ("none", 1)
    assert set(parts.origin.weights) == {"dit", "text_encoder", "vae"}
    assert parts.vae_source is not None
    assert parts.vae_source.path == str((TINY / "vae").absolute())
    assert parts.dit_home is None
    assert parts.model_set == settings.model_set


def test_settings_are_used_as_they_are(settings):
    bfloat16 = dict.fromkeys(settings.dtypes, torch.bfloat16)
    parts = load_parts(dataclasses.replace(settings, dtypes=bfloat16, memory_saving=True, prompt="a cat"))
    assert parts.dit.dtype == torch.bfloat16
    assert parts.vae is not None
    assert parts.vae.memory_saving
    assert len(parts.text_encoder._kept) == 1


def test_heads_that_cannot_be_shared(settings):
    """Before any weight is read: the number of heads stands in the header."""
    from kandinsky.checkpoint.load import dit_config

    with pytest.raises(ValueError, match="3 processes cannot share 2 heads; allowed: 1, 2"):
        check_size(3, dit_config(settings.checkpoint))
