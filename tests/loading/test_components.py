"""One loader for each component; what does not fit is refused by name."""

import json
import shutil

import pytest
import torch
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_dit, load_t5, load_tokenizer, load_vae

CPU = torch.device("cpu")
PLACE = {"device": CPU, "dtype": torch.float32}


def test_the_dit_has_the_files_tensors():
    checkpoint = open_checkpoint(TINY / "kandinsky4_distil_512.pt")
    dit = load_dit(checkpoint, **PLACE)
    assert {name: tuple(value.shape) for name, value in dit.state_dict().items()} == dict(checkpoint.shapes)
    assert not any(parameter.requires_grad for parameter in dit.parameters())


def test_the_embedding_stays_on_the_host_under_both_names():
    t5 = load_t5(TINY / "text_encoder", **PLACE)
    assert t5.shared.weight.data_ptr() == t5.encoder.embed_tokens.weight.data_ptr()


def test_a_tokenizer_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer not found: .*spiece\.model"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"act_fn": "relu"}, "act_fn is 'relu'"),
        ({"scaling_factor": None}, "lacks 'scaling_factor'"),
        ({"temporal_compression_ratio": 3}, "temporal_compression_ratio is 3"),
        ({"_class_name": "AutoencoderKL"}, "describes _class_name='AutoencoderKL'"),
    ],
)
def test_another_vae_is_a_checkpoint_error(tmp_path, change, message):
    folder = shutil.copytree(TINY / "vae", tmp_path / "vae")
    config = json.loads((folder / "config.json").read_text()) | change
    config = {name: value for name, value in config.items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=message):
        load_vae(folder, **PLACE)
