"""Parts to other devices, and what cannot be moved."""

import dataclasses

import pytest
import torch
from helpers import TINY

from kandinsky.loading.assemble import load_parts
from kandinsky.loading.devices import devices_of
from kandinsky.loading.move import check_whole, moved
from kandinsky.loading.settings import settings_of
from kandinsky.parallel.ranks import Ranks


@pytest.fixture(scope="module")
def parts():
    return load_parts(settings_of("cpu", cache_dir=TINY, progress=False))


def test_moved_parts_compute_the_same(parts):
    there = moved(parts, devices_of("cpu"))
    assert there is not parts
    assert there.vae is not parts.vae
    assert torch.equal(there.modulation.blocks, parts.modulation.blocks)
    assert there.origin == dataclasses.replace(parts.origin, dtype="float32")


def test_what_is_shared_out_or_comes_and_goes_stays(parts):
    with pytest.raises(ValueError, match="to: the weights are quantised or shared out over processes"):
        moved(dataclasses.replace(parts, team=Ranks(0, 2)), devices_of("cpu"))
    with pytest.raises(ValueError, match="save_pretrained: the weights are quantised or shared"):
        check_whole(dataclasses.replace(parts, team=Ranks(0, 2)), "save_pretrained")

    class Home:
        """A home, whatever it does."""

    with pytest.raises(ValueError, match='to: weights come and go; load with memory="resident"'):
        moved(dataclasses.replace(parts, dit_home=Home()), devices_of("cpu"))


def test_int8_weights_are_not_saved_as_published():
    parts = load_parts(settings_of("cpu", cache_dir=TINY, progress=False, text_encoder_int8=True))
    with pytest.raises(ValueError, match="to: the weights are quantised"):
        check_whole(parts, "to")
