"""Everything of a pipeline that runs: a frozen value."""

import dataclasses
from pathlib import Path

import pytest
import torch
from fakes import QuickVae, TextOnly

from kandinsky.checkpoint.lora import Lora, LowRank
from kandinsky.config import FLASH_512
from kandinsky.loading.parts import Adapter, Parts, in_words, is_resident, modulation_table
from kandinsky.parallel.ranks import Ranks


def test_nothing_can_be_set(pipe):
    for field in dataclasses.fields(pipe.parts):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(pipe.parts, field.name, None)


def test_a_weight_that_is_too_large_with_its_files_scale():
    layer = LowRank(torch.zeros(1, 1), torch.zeros(1, 1), 1e30)
    assert Adapter(Lora(Path("a.safetensors"), "", {"x": layer}), 1.0).weight == 1.0
    with pytest.raises(ValueError, match=r"weight of a.safetensors=1e\+30: allowed is 3.4e\+08 at most"):
        Adapter(Lora(Path("a.safetensors"), "", {"x": layer}), 1e30)


def test_put_together_by_hand(pipe):
    """What is left out is what one process with the published model set has."""
    parts = Parts(
        dit=pipe.dit,
        modulation=pipe.parts.modulation,
        schedule=pipe.parts.schedule,
        text_encoder=pipe.text_encoder,
        vae=pipe.vae,
    )
    assert parts.model_set == FLASH_512
    assert parts.ranks == parts.team == Ranks(0, 1)
    assert (parts.dit_home, parts.origin, parts.vae_source) == (None, None, None)
    assert parts.progress
    with pytest.raises(TypeError, match="missing"):
        Parts(dit=pipe.dit)


def test_how_it_runs_in_one_line(pipe):
    assert in_words(pipe.parts).startswith("attention torch, kernels torch, memory ")
    modes = {"dit": "disk", "text_embedder": "disk", "vae": "staged"}
    told = in_words(dataclasses.replace(pipe.parts, modes=modes))
    assert told.endswith("memory disk for dit, disk for text_embedder, staged for vae")
    assert in_words(dataclasses.replace(pipe.parts, modes=dict.fromkeys(modes, "blocks"))).endswith("memory blocks")
    assert in_words(dataclasses.replace(pipe.parts, modes={})).endswith("memory unknown")


def test_modulation_of_every_timestep(pipe):
    """The table is of these and in their order."""
    schedule = pipe.parts.schedule
    table = modulation_table(pipe.dit, schedule)
    assert torch.equal(table.blocks, pipe.parts.modulation.blocks)
    assert table.blocks.shape[:4] == (len(schedule.timesteps), len(pipe.dit.blocks), 2, 6)
    first = dataclasses.replace(schedule, timesteps=schedule.timesteps[:1], alphas_cumprod=schedule.alphas_cumprod[:1])
    assert torch.allclose(modulation_table(pipe.dit, first).blocks, table.blocks[:1], atol=1e-5)
    assert not torch.allclose(table.blocks[1:2], table.blocks[:1], atol=1e-3)


def test_whether_all_weights_stay(pipe):
    comes = TextOnly(torch.zeros(1))
    comes.is_resident = False
    changes = {
        "all stay": ({}, True),
        "the DiT's come and go": ({"dit_home": object()}, False),
        "T5's come and go": ({"text_encoder": comes}, False),
        "the VAE's come and go": ({"vae": QuickVae(staged=True)}, False),
        "of a rank that has neither": ({"text_encoder": None, "vae": None}, True),
    }
    for change, expected in changes.values():
        assert is_resident(dataclasses.replace(pipe.parts, **change)) == expected
