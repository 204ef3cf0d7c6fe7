"""Random weights: the same from the same seed everywhere, and complete."""

import pytest
import torch
from checkpoint_helpers import CPU, DIT, NAME
from helpers import TINY

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.random_weights import SIZES, make_random_weights, random_dit
from kandinsky.checkpoint.standing import NEEDED, faults_of


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """In a folder in which a set with other sizes, and copies of its DiT, stood before."""
    folder = tmp_path_factory.mktemp("random")
    for name in ("model_set.json", f"{NAME}.safetensors", f"{NAME}_fast.safetensors"):
        (folder / name).write_text("another set's")
    return make_random_weights(folder, "tiny")


def test_the_set_is_that_of_the_tests(made):
    names = {path.relative_to(TINY) for path in TINY.rglob("*") if path.is_file()}
    assert {path.relative_to(made) for path in made.rglob("*") if path.is_file()} == names
    for part in (f"{NAME}.pt", "text_encoder", "vae"):
        ours, theirs = open_checkpoint(made / part), open_checkpoint(TINY / part)
        assert ours.shapes == theirs.shapes
        assert all(torch.equal(ours.tensor(key, CPU), theirs.tensor(key, CPU)) for key in ours.shapes)


def test_nothing_of_the_set_before_is_left(made):
    assert read_model_set(made) is None
    assert not any(faults_of(name, made / name).all for name in NEEDED)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert make_random_weights("~/w", "tiny") == tmp_path / "w"
    assert [path.name for path in tmp_path.iterdir()] == ["w"]


def test_another_seed_is_another_model():
    sizes = SIZES["tiny"].dit
    one, other = (random_dit(sizes, torch.Generator().manual_seed(seed)).state_dict() for seed in (0, 1))
    assert torch.equal(one["visual_embeddings.in_layer.weight"], torch.load(DIT)["visual_embeddings.in_layer.weight"])
    assert not torch.equal(one["visual_embeddings.in_layer.weight"], other["visual_embeddings.in_layer.weight"])


def test_a_size_that_is_not_known(tmp_path):
    with pytest.raises(ValueError, match="size='huge': allowed are tiny, full"):
        make_random_weights(tmp_path / "w", "huge")
    assert not (tmp_path / "w").exists()
