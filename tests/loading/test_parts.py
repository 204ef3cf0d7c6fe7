"""Parts are a frozen value; whoever has modules puts them together by hand."""

import dataclasses

import pytest
import torch

from kandinsky import Kandinsky4T2VPipeline
from kandinsky.loading.parts import Parts, is_resident, modulation_table
from kandinsky.memory.modes import STAGED, home_of_dit
from kandinsky.model.precision import EXACT

CALL = {"time_length": 1, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}


def test_put_together_by_hand(pipe):
    parts = Parts(
        dit=pipe.dit,
        modulation=modulation_table(pipe.dit, pipe.parts.schedule),
        schedule=pipe.parts.schedule,
        text_encoder=pipe.text_encoder,
        vae=pipe.vae,
        model_set=pipe.model_set,
        progress=False,
    )
    other = Kandinsky4T2VPipeline(parts)
    assert other.parts is parts
    assert other.origin is None
    assert torch.equal(other("a cat", **CALL), pipe("a cat", **CALL))
    with pytest.raises(dataclasses.FrozenInstanceError):
        parts.progress = True


def test_the_table_has_the_schedules_timesteps(pipe):
    steps, blocks = len(pipe.parts.schedule.timesteps), len(pipe.dit.blocks)
    table = modulation_table(pipe.dit, pipe.parts.schedule)
    assert table.blocks.shape[:4] == (steps, blocks, 2, 6)
    assert torch.equal(table.blocks, pipe.parts.modulation.blocks)


def test_what_comes_and_goes_is_not_resident(pipe):
    import copy

    assert is_resident(pipe.parts)
    dit = copy.deepcopy(pipe.dit)
    home = home_of_dit(dit, torch.device("cpu"), mode=STAGED, precision=EXACT)
    assert not is_resident(dataclasses.replace(pipe.parts, dit=dit, dit_home=home))
