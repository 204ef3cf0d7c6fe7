"""What a student is given while it is trained."""

import pytest
import torch

from kandinsky.training.known_frames import draw_known, put_in


def drawn(share=1.0, shape=(400, 4, 8, 8, 16), seed=0):
    return draw_known(shape, share, torch.Generator().manual_seed(seed))


def test_nothing_is_given_and_nothing_drawn_without_a_share():
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert not draw_known((4, 3, 8, 8, 16), 0.0, generator).any()
    assert torch.equal(generator.get_state(), before)


def test_each_kind_is_drawn_and_something_is_left_to_be_made():
    known = drawn()
    assert known.any((1, 2, 3)).float().mean() > 0.95  # a rectangle may be all there is
    assert not known.all(3).all(2).all(1).any()
    frames = {tuple(each) for each in known.all(3).all(2).tolist()}
    assert frames == {
        (True, False, False, False),
        (False, False, False, True),
        (True, False, False, True),
        (True, True, False, False),
        (True, True, True, False),
        (False, False, False, False),
    }
    parts = known & ~known.all(3).all(2)[:, :, None, None]
    some = parts[parts.any((1, 2, 3))]
    assert len(some) > 0
    assert torch.equal(some, some[:, :1].expand_as(some))  # a rectangle is the same in all frames


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_share(share):
    assert drawn(share).any((1, 2, 3)).float().mean() == pytest.approx(share, abs=0.08)


def test_pictures_are_given_a_part():
    known = drawn(shape=(50, 1, 8, 8, 16))
    assert known.any()
    assert not known.all((1, 2, 3)).any()


def test_put_in():
    known = drawn(shape=(5, 3, 4, 4, 16))
    clean, latents = torch.ones(5, 3, 4, 4, 16), torch.zeros(5, 3, 4, 4, 16)
    assert torch.equal(put_in(known, clean, latents).mean(-1).bool(), known)
