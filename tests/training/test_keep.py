"""Clips of the base that are to stay: in each shape of the data, drawn by number."""

import pytest
import torch
from helpers import TINY
from lora_training_helpers import small_model

from kandinsky.training.keep import make_kept, read_kept_captions
from kandinsky.training.levels import Levels
from kandinsky.training.sampling import sample_from

CPU = torch.device("cpu")
SHAPES = [(1, 4, 4, 16), (3, 4, 4, 16)]


@pytest.fixture(scope="module")
def base(teacher):
    return small_model(teacher).base


def test_each_caption_is_made_in_one_shape(base):
    text = torch.randn(5, 6, 64, generator=torch.Generator().manual_seed(0))
    kept = make_kept(base, Levels(TINY / "scheduler"), text, SHAPES, seed=0, device=CPU)
    assert [tuple(kept.latents[shape].shape) for shape in SHAPES] == [(3, *SHAPES[0]), (2, *SHAPES[1])]
    assert torch.equal(kept.text[SHAPES[1]], text[[1, 3]])


def test_few_captions_are_made_in_several(base):
    text = torch.randn(1, 6, 64, generator=torch.Generator().manual_seed(0))
    kept = make_kept(base, Levels(TINY / "scheduler"), text, SHAPES, seed=0, device=CPU)
    assert all(len(kept.latents[shape]) == 1 for shape in SHAPES)


def test_they_are_the_base_s_own(base):
    from kandinsky.sampler import draw_noise

    text = torch.randn(2, 6, 64, generator=torch.Generator().manual_seed(0))
    levels = Levels(TINY / "scheduler")
    kept = make_kept(base, levels, text, SHAPES[:1], seed=7, device=CPU)
    generator = torch.Generator().manual_seed(7)
    noises = torch.stack([draw_noise((2, *SHAPES[0]), generator).float() for _ in range(4)])
    assert torch.equal(kept.latents[SHAPES[0]], sample_from(base, levels, noises, text).float())
    numbers = kept.draw((9, *SHAPES[0]), torch.Generator().manual_seed(0))
    assert set(numbers.tolist()) == {0, 1}
    assert torch.equal(kept.take(torch.Size(SHAPES[0]), numbers)[1], text[numbers])


def test_captions_of_a_file(tmp_path):
    file = tmp_path / "keep.txt"
    file.write_text("a cat\n\n  a dog \n")
    assert read_kept_captions(file) == ["a cat", "a dog"]
    file.write_text(" \n")
    with pytest.raises(ValueError, match="has no caption"):
        read_kept_captions(file)
    with pytest.raises(FileNotFoundError):
        read_kept_captions(tmp_path / "nothing.txt")
