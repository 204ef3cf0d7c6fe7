"""Sizes are checked where they are put together, and names of options stand once."""

import dataclasses

import pytest

from kandinsky import config
from kandinsky.config import FLASH_512, MODEL_SETS, PUBLISHED_DIT
from kandinsky.memory.modes import MODES
from kandinsky.model.precision import PRECISIONS
from kandinsky.parallel.apply import KINDS


def test_published_sizes():
    assert PUBLISHED_DIT.head_dim == 64
    assert PUBLISHED_DIT.model_dim // PUBLISHED_DIT.head_dim == 48
    assert MODEL_SETS == {512: FLASH_512}
    assert (672, 384) in FLASH_512.sizes  # width first


def test_sizes_that_make_no_model():
    with pytest.raises(ValueError, match="model_dim=100 is not a multiple of head_dim=64"):
        dataclasses.replace(PUBLISHED_DIT, model_dim=100)
    with pytest.raises(ValueError, match="RoPE turns pairs of channels"):
        dataclasses.replace(PUBLISHED_DIT, axes_dims=(15, 25, 24))


def test_every_name_has_a_value():
    assert tuple(PRECISIONS) == config.PRECISIONS
    assert tuple(KINDS) == config.PARALLELISMS
    assert tuple(MODES) == config.MEMORY_MODES
