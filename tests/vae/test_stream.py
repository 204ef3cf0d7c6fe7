"""Chunks of uint8 frames: published chunking and rounding."""

import pytest
import torch
from vae_helpers import latents_of

from kandinsky.vae.stream import chunk_bounds, decode, to_host, to_uint8


@pytest.mark.parametrize(
    ("frames", "bounds"),
    [(1, [(0, 1)]), (2, [(0, 2)]), (3, [(0, 3)]), (4, [(0, 2), (2, 4)]), (5, [(0, 3), (3, 5)])],
)
def test_chunk_bounds(frames, bounds):
    assert chunk_bounds(frames) == bounds


@pytest.mark.parametrize(("frames", "sizes"), [(1, [1]), (4, [8, 8]), (7, [9, 8, 8])])
def test_stream_equals_whole(decoder, theirs, frames, sizes):
    latents = 0.7 * latents_of(frames, 2, 3).double()  # scaled, in the sampler's dtype
    chunks = [chunk.clone() for chunk in to_host(decode(decoder, latents))]
    assert [len(chunk) for chunk in chunks] == sizes
    differ = torch.cat(chunks).int() - to_uint8(theirs(frames)).int()
    assert differ.abs().max() <= 1  # where a value lies on the border of two
    assert (differ != 0).float().mean() < 1e-3


def test_to_uint8_cuts():
    x = torch.tensor([-2.0, -1.0, 0.0, 0.999, 1.0, 3.0])
    assert to_uint8(x).tolist() == [0, 0, 127, 254, 255, 255]


@pytest.mark.parametrize("shape", [(0, 4, 6, 16), (3, 4, 6, 8), (1, 3, 4, 6, 16)])
def test_wrong_latents_are_named(decoder, shape):
    with pytest.raises(ValueError, match=r"expected \[frames, height, width, 16\]"):
        next(decode(decoder, torch.zeros(shape)))
