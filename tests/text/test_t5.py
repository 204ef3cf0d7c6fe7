"""T5 against transformers' own model, and which T5 it is for."""

import json
from dataclasses import replace

import pytest
import torch
from helpers import TINY, relative_error
from transformers import T5EncoderModel

from kandinsky.text.t5 import EMBEDDING, T5Config, T5Encoder, _buckets

CONFIG = json.loads((TINY / "text_encoder" / "config.json").read_text())
PUBLISHED_BUCKETS = {"relative_attention_num_buckets": 32, "relative_attention_max_distance": 128}
IDS = torch.tensor([5, 17, 3, 3, 1, 0, 0, 0] * 20)
"""Longer than the largest distance that a bucket of its own has."""


@pytest.fixture(scope="module")
def theirs():
    return T5EncoderModel.from_pretrained(TINY / "text_encoder", dtype=torch.float32)


@pytest.fixture(scope="module")
def ours(theirs):
    return T5Encoder.from_transformers(theirs)


def test_result_is_transformers_own(theirs, ours):
    with torch.inference_mode():
        for ids in (IDS, IDS[:1]):
            assert relative_error(ours(ids), theirs(ids[None]).last_hidden_state[0]) < 1e-6


def test_weights_have_the_names_of_transformers(theirs, ours):
    assert set(ours.state_dict()) == set(theirs.state_dict())
    assert set(EMBEDDING) <= set(ours.state_dict())
    assert ours.shared is ours.encoder.embed_tokens
    assert not any(parameter.requires_grad for parameter in ours.parameters())


def test_the_embedding_may_stay_elsewhere(ours):
    """Where T5 runs is told by its last norm."""
    assert ours.device == torch.device("cpu")
    assert ours.dtype == torch.float32
    with torch.device("meta"):
        elsewhere = T5Encoder(ours.config)
    elsewhere.shared.weight = torch.nn.Parameter(ours.shared.weight.clone(), requires_grad=False)
    assert elsewhere.device.type == "meta"
    assert elsewhere.embed(IDS).device.type == "meta"
    assert torch.equal(ours.embed(IDS), ours.shared.weight[IDS])


def test_buckets_of_distances():
    """Half of them are for keys behind the query; near ones have a bucket each, far ones share."""
    buckets = _buckets(replace(T5Config.from_mapping(CONFIG), **PUBLISHED_BUCKETS), 300, torch.device("cpu"))
    assert buckets[0, :8].tolist() == [0, *range(17, 24)]
    assert buckets[8, 0:8].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert buckets[0, 299] == 31
    assert buckets[299, 0] == 15


def test_sizes_are_those_of_the_configuration(ours):
    assert ours.config == T5Config.from_mapping(CONFIG)
    assert T5Config.from_mapping(ours.config.to_mapping()) == ours.config
    assert len(ours.encoder.block) == CONFIG["num_layers"]
    assert ours.shared.weight.shape == (CONFIG["vocab_size"], CONFIG["d_model"])


def test_defaults_are_those_of_transformers():
    small = {name: CONFIG[name] for name in ("vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_heads")}
    found = T5Config.from_mapping({**small, "feed_forward_proj": "gated-gelu"})
    from transformers import T5Config as Theirs

    for name in ("relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon"):
        assert getattr(found, name) == getattr(Theirs(), name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feed_forward_proj": "relu"}, r"feed_forward_proj is 'relu'; supported: 'gated-gelu' \(T5-V1.1\)"),
        ({"feed_forward_proj": None}, "feed_forward_proj is None"),
    ],
)
def test_another_t5_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        T5Config.from_mapping({**CONFIG, **change})


def test_a_size_that_is_missing():
    with pytest.raises(ValueError, match=r"the text encoder's configuration is incomplete: .*'d_ff'"):
        T5Config.from_mapping({name: value for name, value in CONFIG.items() if name != "d_ff"})
