"""Motion that is made on the spot."""

import torch

from kandinsky.training.motion.synthesis import NOISES, Motion, noise_textures


def motion(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Motion(noise_textures(96, generator), generator, size=64)


def test_triplets_are_pictures_with_a_time():
    made = motion().draw(6)
    for frames in (made.first, made.middle, made.second):
        assert frames.shape == (6, 3, 64, 64)
        assert 0 <= frames.min() < frames.max() <= 1
    assert ((made.t >= 0.1) & (made.t <= 0.9)).all()


def test_the_middle_lies_between():
    """It is nearer to both than they are to each other."""
    made = motion().draw(16)
    whole = (made.second - made.first).square().mean((1, 2, 3))
    assert (whole > 0).all()
    assert ((made.middle - made.first).square().mean() < whole.mean()) & (
        (made.middle - made.second).square().mean() < whole.mean()
    )


def test_a_seed_decides():
    first, again, other = (motion(seed).draw(2).middle for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_textures():
    made = noise_textures(96, torch.Generator().manual_seed(0))
    assert made.shape == (NOISES, 3, 96, 96)
    assert (made.std(dim=(1, 2, 3)) > 0.01).all()
