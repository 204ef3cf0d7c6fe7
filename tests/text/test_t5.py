"""T5's sizes, its position buckets, and its weights against transformers' model."""

import pytest
import torch
from helpers import TINY, relative_error
from transformers import T5EncoderModel

from kandinsky.text.t5 import T5Config, T5Encoder, _buckets

SIZES = {"vocab_size": 32, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4}


def test_equals_transformers():
    theirs = T5EncoderModel.from_pretrained(TINY / "text_encoder", dtype=torch.float32).eval()
    ids = torch.randint(0, 256, (40,), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs(ids[None]).last_hidden_state[0]
        assert relative_error(T5Encoder.from_transformers(theirs)(ids), expected) < 1e-6


def test_configuration_is_read_and_written():
    config = T5Config.from_mapping({**SIZES, "feed_forward_proj": "gated-gelu", "dropout_rate": 0.1})
    assert config == T5Config(**SIZES)
    assert T5Config.from_mapping(config.to_mapping()) == config
    with pytest.raises(ValueError, match="feed_forward_proj is 'relu'; supported: 'gated-gelu'"):
        T5Config.from_mapping({**SIZES, "feed_forward_proj": "relu"})
    with pytest.raises(ValueError, match=r"configuration is incomplete: .*d_model"):
        T5Config.from_mapping({"feed_forward_proj": "gated-gelu", **{k: v for k, v in SIZES.items() if k != "d_model"}})


def test_buckets_of_distances():
    """Half of them are for keys behind the query; near ones have a bucket each, far ones share."""
    buckets = _buckets(T5Config(**SIZES), 300, torch.device("cpu"))
    assert buckets[0, 0] == 0
    assert buckets[0, 1:8].tolist() == [16 + n for n in range(1, 8)]
    assert buckets[8, 0:8].tolist() == [8, 7, 6, 5, 4, 3, 2, 1]
    assert buckets[0, 299] == 31
    assert buckets[299, 0] == 15
