"""Sizes of a DiT from the shapes of its tensors."""

from dataclasses import replace

import pytest
import torch
from model_helpers import SMALL_DIT

from kandinsky.config import PUBLISHED_DIT
from kandinsky.model.dit import DiT
from kandinsky.model.sizes import dit_config, is_quantised

OTHER = replace(SMALL_DIT, in_visual_dim=4, in_text_dim=5, out_visual_dim=6, time_dim=7, ff_dim=9, num_blocks=3)


def shapes_of(config):
    with torch.device("meta"):
        return {name: tuple(value.shape) for name, value in DiT(config).state_dict().items()}


@pytest.mark.parametrize("config", [SMALL_DIT, OTHER, PUBLISHED_DIT], ids=["small", "other", "published"])
def test_sizes_are_those_that_it_was_built_with(config):
    assert dit_config(shapes_of(config)) == config


@pytest.mark.parametrize("name", ["rope_embeddings.args_1", "transformer_blocks.0.0.feed_forward.in_layer.weight"])
def test_what_is_missing_is_named(name):
    shapes = shapes_of(SMALL_DIT)
    del shapes[name]
    with pytest.raises(ValueError, match=f"not a Kandinsky 4 DiT: key '{name}' is missing"):
        dit_config(shapes)


def test_float8_weights_are_told_by_their_scales():
    shapes = shapes_of(SMALL_DIT)
    assert not is_quantised(shapes)
    assert is_quantised({**shapes, "transformer_blocks.0.0.self_attention.to_query_key_value.scale": (1, 96)})
