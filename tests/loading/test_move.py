"""Parts to other devices, on a CPU: what moves, what is chosen anew, and what is refused."""

from dataclasses import replace

import pytest
import torch
from fakes import QuickVae

from kandinsky.config import MODULES
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.move import check_whole, moved
from kandinsky.model.attention import BACKENDS, TORCH
from kandinsky.parallel.ranks import Ranks
from kandinsky.pipeline import Kandinsky4T2VPipeline

DEVICES = dict.fromkeys(MODULES, torch.device("cpu"))
CALL = {"time_length": 0, "width": 64, "height": 64, "seed": 3}


@pytest.fixture(scope="module")
def parts(small_weights):
    """Of a pipeline of its own: its modules are moved."""
    return get_T2V_pipeline("cpu", cache_dir=small_weights, progress=False).parts


def test_the_same_comes_of_it(parts, pipe):
    other = moved(parts, DEVICES)
    assert other is not parts
    made = Kandinsky4T2VPipeline(other)("a cat", output_type="pt", **CALL)
    assert torch.equal(made, pipe("a cat", output_type="pt", **CALL))


def test_what_is_known_of_it_follows(parts):
    other = moved(parts, DEVICES)
    assert dict(other.origin.devices) == dict.fromkeys(MODULES, "cpu")
    assert other.origin.dtype == "float32"  # it is kept, whatever the new device's own would be
    assert other.origin.weights == parts.origin.weights
    assert other.vae_source == parts.vae_source
    assert other.vae.memory_saving == parts.vae.memory_saving
    assert torch.equal(other.modulation.blocks, parts.modulation.blocks)


def test_how_it_runs_is_chosen_anew(parts):
    parts.dit.attention = BACKENDS["cudnn"]
    assert moved(parts, DEVICES).dit.attention is TORCH


def test_what_is_not_known_stays_unknown(parts):
    other = moved(replace(parts, origin=None, vae_source=None), DEVICES)
    assert (other.origin, other.vae_source) == (None, None)


def test_weights_that_come_and_go_do_not_move(parts):
    for changes in ({"dit_home": object()}, {"vae": QuickVae(staged=True)}):
        with pytest.raises(ValueError, match='to: weights come and go; load with memory="resident"'):
            moved(replace(parts, **changes), DEVICES)


def test_what_is_not_whole_does_not_move(parts):
    with pytest.raises(ValueError, match="to: the weights are quantised or shared out over processes"):
        moved(replace(parts, team=Ranks(0, 2)), DEVICES)


def test_quantised_weights_are_not_whole(small_weights, parts):
    check_whole(parts, "to")
    check_whole(replace(parts, text_encoder=None), "to")
    int8 = get_T2V_pipeline("cpu", cache_dir=small_weights, text_encoder_int8=True, progress=False).parts
    with pytest.raises(ValueError, match="save_pretrained: the weights are quantised"):
        check_whole(int8, "save_pretrained")
