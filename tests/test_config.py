"""Sizes that are checked where they are built, and names of options that have values."""

import dataclasses

import pytest

from kandinsky.config import (
    ATTENTIONS,
    FLASH_512,
    MEMORY_MODES,
    MODEL_SETS,
    MODULES,
    PARALLELISMS,
    PRECISIONS,
    PUBLISHED_DIT,
)
from kandinsky.memory.modes import MODES
from kandinsky.memory.planner import STAGES
from kandinsky.model import precision
from kandinsky.model.attention import BACKENDS
from kandinsky.parallel.apply import KINDS


def test_the_published_model():
    assert PUBLISHED_DIT.head_dim == 64
    assert PUBLISHED_DIT.model_dim == 48 * PUBLISHED_DIT.head_dim
    assert all(width % 16 == height % 16 == 0 for width, height in FLASH_512.sizes)
    assert {(height, width) for width, height in FLASH_512.sizes} == set(FLASH_512.sizes)  # portrait and landscape


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_dim": 100}, r"model_dim=100 is not a multiple of head_dim=64 \(sum of axes_dims=\(16, 24, 24\)\)"),
        ({"axes_dims": (15, 25, 24)}, r"axes_dims=\(15, 25, 24\): RoPE turns pairs of channels"),
    ],
)
def test_sizes_that_do_not_fit(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PUBLISHED_DIT, **change)


def test_a_size_is_never_taken_for_granted():
    with pytest.raises(TypeError, match="model_dim"):
        type(PUBLISHED_DIT)(patch_size=(1, 2, 2))


def test_nothing_can_be_set():
    for value, name in ((PUBLISHED_DIT, "model_dim"), (FLASH_512, "fps")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, name, 1)
    with pytest.raises(TypeError):
        MODEL_SETS[256] = FLASH_512
    assert MODEL_SETS == {512: FLASH_512}


def test_every_name_has_a_value():
    assert tuple(precision.PRECISIONS) == PRECISIONS
    assert tuple(MODES) == MEMORY_MODES
    assert tuple(BACKENDS) == ATTENTIONS
    assert set(KINDS) == set(PARALLELISMS)
    assert set(STAGES.values()) == set(MODULES)
