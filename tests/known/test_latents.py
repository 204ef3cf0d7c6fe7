"""Given pixels to known latents and masks."""

import pytest
import torch

from kandinsky.known.given import STRENGTHS, Given, first_step
from kandinsky.known.latents import Known, known_of, latent_mask

GRID = (3, 4, 6)


def encode(frames):
    """A stand-in for the VAE: each latent holds the mean of its frames' first pixel."""
    cells = frames[:, ::8, ::8, :1].float()
    later = cells[1:].unflatten(0, (-1, 4)).mean(1) if len(frames) > 1 else cells[1:]
    return torch.cat((cells[:1], later)).expand(-1, -1, -1, 16)


def clip(frames, value=7):
    return torch.full((frames, 32, 48, 3), value, dtype=torch.uint8)


def test_a_picture_is_the_first_latent_frame():
    known = known_of(Given(head=clip(1)), encode, GRID, steps=4)
    assert known.latents.shape == (*GRID, 16)
    assert known.mask[0].all() and not known.mask[1:].any()
    assert (known.latents[0] == 7).all() and known.first == 0


def test_a_head_of_several_frames():
    known = known_of(Given(head=clip(5)), encode, GRID, steps=4)
    assert known.mask[:2].all() and not known.mask[2:].any()


def test_a_last_picture_and_both():
    known = known_of(Given(last=clip(1, 9)[0]), encode, GRID, steps=4)
    assert known.mask[-1].all() and not known.mask[:-1].any() and (known.latents[-1] == 9).all()
    both = known_of(Given(head=clip(1), last=clip(1, 9)[0]), encode, GRID, steps=4)
    assert both.mask[:, 0, 0].tolist() == [True, False, True]


@pytest.mark.parametrize(("strength", "first"), [*zip(STRENGTHS, range(4), strict=True)])
def test_a_video_begins_the_run_and_is_not_kept(strength, first):
    known = known_of(Given(video=clip(9), strength=strength), encode, GRID, steps=4)
    assert known.first == first and not known.mask.any() and (known.latents == 7).all()


def test_strengths_of_other_schedules():
    assert [first_step(strength, 1) for strength in STRENGTHS] == [0] * 4
    assert [first_step(strength, 8) for strength in STRENGTHS] == [0, 2, 4, 6]


def test_what_a_mask_leaves_is_kept():
    anew = torch.zeros(1, 32, 48, dtype=torch.bool)
    anew[:, 0, 0] = True  # one pixel: its latent and those beside it
    known = known_of(Given(video=clip(9), anew=anew), encode, GRID, steps=4)
    expected = torch.ones(4, 6, dtype=torch.bool)
    expected[:2, :2] = False
    assert torch.equal(known.mask, expected.expand(GRID))


def test_a_mask_of_a_picture_does_not_touch_the_last_one():
    anew = torch.ones(1, 32, 48, dtype=torch.bool)
    known = known_of(Given(head=clip(1), last=clip(1)[0], anew=anew), encode, GRID, steps=4)
    assert not known.mask[:-1].any() and known.mask[-1].all()


def test_frames_of_a_mask():
    anew = torch.zeros(9, 32, 48, dtype=torch.bool)
    anew[4, 31, 47] = True  # of frames 1 to 4, latent frame 1
    assert latent_mask(anew).flatten(1).any(1).tolist() == [False, True, False]


def test_values_that_do_not_go_together():
    with pytest.raises(ValueError, match=r"known is latents \[3, 4, 6, 16\], mask torch.float32"):
        Known(torch.zeros(*GRID, 16), torch.zeros(GRID))
    with pytest.raises(ValueError, match="given is a head"):
        Given()
