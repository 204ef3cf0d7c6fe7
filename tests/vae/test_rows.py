"""Rows of a picture on one device: there is nothing outside."""

import torch

from kandinsky.vae.rows import WHOLE, all_rows


def test_the_whole_picture_needs_no_neighbours():
    assert all_rows(48) is WHOLE
    x = torch.randn(3, 4, 5, 2)
    assert torch.equal(x[:, WHOLE.rows], x)
    assert WHOLE.border == 0
    assert WHOLE.pixels(17.5) == 17.5
    assert WHOLE.collect(x) is x
    assert WHOLE.collect(x, everywhere=True) is x
    assert torch.equal(WHOLE.gather(x), x[None])
    assert torch.equal(x[WHOLE.share_of(3)], x)
    assert WHOLE.join(x, 3) is x
    before = x.clone()
    WHOLE.fill_border(x)
    assert torch.equal(x, before)
