"""A DiT to train: what it begins as."""

import pytest
import torch
from model_helpers import SMALL_DIT
from safetensors.torch import load_file, save_file

from kandinsky.training.initial import fresh, load_trainable
from kandinsky.training.velocity import velocity


def call(dit):
    generator = torch.Generator().manual_seed(0)
    visual, text = torch.randn(1, 1, 4, 4, 16, generator=generator), torch.randn(1, 3, 64, generator=generator)
    return velocity(dit, visual, text, torch.tensor([500]))


def test_a_fresh_one_is_the_identity_with_a_silent_end():
    """Gates are shut and the last layer is zero; its blocks would change the stream."""
    dit = fresh(SMALL_DIT, seed=0)
    assert all((block.modulation(torch.randn(1, 16)) == 0).all() for block in dit.blocks)
    assert (call(dit) == 0).all()
    assert dit.blocks[0].self_attention.output_layer.weight.abs().sum() > 0
    assert all(value.requires_grad for value in dit.parameters())


def test_a_seed_gives_the_same_weights_and_leaves_other_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (fresh(SMALL_DIT, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "visual_embeddings.in_layer.weight"
    assert not torch.equal(one[name], other[name])


def test_weights_are_taken_in_float32_with_gradients(teacher, tmp_path):
    half = {name: value.bfloat16() for name, value in load_file(teacher).items()}
    torch.save(half, tmp_path / "half.pt")
    save_file(half, tmp_path / "half.safetensors")
    for name in ("half.pt", "half.safetensors"):
        dit = load_trainable(tmp_path / name)
        assert dit.config == SMALL_DIT
        for key, value in dit.named_parameters():
            assert (value.dtype, value.requires_grad) == (torch.float32, True)
            assert torch.equal(value.bfloat16(), half[key])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.pt"):
        load_trainable(tmp_path / "none.pt")
