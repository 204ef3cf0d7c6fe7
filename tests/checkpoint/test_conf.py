"""The YAML file of `conf_path`."""

from pathlib import Path

import pytest

from kandinsky.checkpoint.conf import ConfFile, read_conf
from kandinsky.config import PUBLISHED_DIT

WHOLE = """
vae: {checkpoint_path: a/vae}
text_embedder: {emb_size: 4096, tokens_lenght: 224, params: {checkpoint_path: a/t5, tokenizer_path: Токены}}
dit:
  scheduler: a/scheduler
  checkpoint_path: a/dit.pt
  params: {model_dim: 3072, axes_dims: [16, 24, 24]}
resolution: 512
"""


def conf(folder, text):
    (folder / "conf.yaml").write_bytes(text.encode())
    return read_conf(folder / "conf.yaml")


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_everything_that_it_may_say(tmp_path, mark):
    found = conf(tmp_path, mark + WHOLE)
    paths = {
        "vae": "a/vae",
        "text_encoder": "a/t5",
        "tokenizer": "Токены",
        "scheduler": "a/scheduler",
        "dit": "a/dit.pt",
    }
    assert found.paths == {name: Path(path) for name, path in paths.items()}
    assert (found.resolution, found.text_tokens, found.text_dim) == (512, 224, 4096)
    assert found.dit_sizes == {"model_dim": 3072, "axes_dims": [16, 24, 24]}
    found.check_sizes(PUBLISHED_DIT)


@pytest.mark.parametrize("text", ["", "resolution:", "dit: {params: {model_dim: }}"])
def test_everything_is_optional(tmp_path, text):
    assert conf(tmp_path, text) == read_conf(None) == ConfFile() or conf(tmp_path, text).dit_sizes == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dit: [", "is not YAML"),
        ("- 1", "the top level must be a mapping with keys among dit, resolution, text_embedder, vae"),
        ("dit: {colour: 1}", "unknown key 'colour' in dit"),
        ("resolution: 5.0", "resolution=5.0 must be a whole number"),
        ("text_embedder: {tokens_lenght: true}", "text_embedder.tokens_lenght=True must be a whole number"),
        ("vae: {checkpoint_path: 3}", "vae.checkpoint_path=3 must be a path"),
    ],
)
def test_what_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        conf(tmp_path, text)


def test_sizes_that_are_not_the_checkpoints(tmp_path):
    with pytest.raises(ValueError, match="conf_path gives in_text_dim=64, the DiT checkpoint has 4096"):
        conf(tmp_path, "text_embedder: {emb_size: 64}").check_sizes(PUBLISHED_DIT)


def test_a_file_that_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_conf(tmp_path / "none.yaml")
