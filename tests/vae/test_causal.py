"""Causal convolutions over chunks, against one over everything."""

import pytest
import torch
from torch.nn import functional as F

from kandinsky.vae.activation import Activation, Time, dense
from kandinsky.vae.causal import causal_convolution, convolve, frames_per_window
from kandinsky.vae.decoder_weights import CausalConv, pair_kernels
from kandinsky.vae.halos import Halos
from kandinsky.vae.rows import WHOLE


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def direct(x, weight):
    """[T, H, W, I] by PyTorch, the first frame continued into the past."""
    padded = torch.cat((x[:1], x[:1], x))
    return F.conv3d(padded.permute(3, 0, 1, 2)[None], weight, padding=(0, 1, 1))[0].permute(1, 2, 3, 0)


def filled_from(x):
    return lambda start, stop, out: out.copy_(x[start:stop])


def run(x, conv, *, max_bytes=10**9, chunks=((0, None),), in_place=False):
    halos = Halos([conv], x, border=0)
    parts = []
    for start, stop in chunks:
        part = x[start:stop].clone()
        like = Activation(part, len(part))
        settings = {"like": like, "rows": WHOLE, "max_bytes": max_bytes, "in_place": in_place}
        parts.append(causal_convolution(conv, halos, filled_from(part), **settings).data)
    return torch.cat(parts)


@pytest.mark.parametrize("max_bytes", [10**9, 1])
@pytest.mark.parametrize("chunks", [((0, 7),), ((0, 3), (3, 5), (5, 7)), ((0, 1), (1, 7))])
@pytest.mark.parametrize("in_place", [False, True])
def test_chunks_and_windows_change_nothing(max_bytes, chunks, in_place):
    x, weight = random(7, 4, 6, 8), random(8, 8, 3, 3, 3, seed=1)
    found = run(x, CausalConv((weight,), 1, 0), max_bytes=max_bytes, chunks=chunks, in_place=in_place)
    torch.testing.assert_close(found, direct(x, weight), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("max_bytes", [10**9, 1])
@pytest.mark.parametrize("frames", [1, 2, 5, 6])
def test_doubled_frames(frames, max_bytes):
    """Even and odd results of the kernels for pairs are the convolution of what is shown."""
    stored, weight = random((frames + 1) // 2, 4, 6, 8), random(5, 8, 3, 3, 3, seed=1)
    shown = stored[[(t + frames % 2) // 2 for t in range(frames)]]
    conv = CausalConv(pair_kernels(weight), 1, 0)
    like = Activation(stored, frames, Time.PAIRED)
    out = causal_convolution(
        conv, Halos([conv], stored, border=0), filled_from(stored), like=like, rows=WHOLE, max_bytes=max_bytes
    )
    assert (out.time, out.frames) == (Time.SPLIT, frames)
    torch.testing.assert_close(dense(out), direct(shown, weight), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("border", [0, 1])
def test_a_border_stands_for_the_padding_of_rows(border):
    x, weight = random(4, 5, 6, 3), random(2, 3, 3, 3, 3, seed=1)
    expected = F.conv3d(x.permute(3, 0, 1, 2)[None], weight, padding=(0, 1 - border, 1))[0].permute(1, 2, 3, 0)
    out = torch.empty(2, 5 - 2 * border, 6, 2)
    convolve(x, weight, out, border=border)
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


def test_a_kernel_of_quarters_takes_each_frame_alone():
    x, weight = random(4, 5, 6, 3), random(2, 3, 2, 2, seed=1)
    out = torch.empty(4, 6, 7, 2)
    convolve(x, weight, out, border=0)
    torch.testing.assert_close(out.movedim(-1, 1), F.conv2d(x.movedim(-1, 1), weight, padding=1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("frames", "halo", "max_bytes", "expected"),
    [(8, 2, 100, 8), (8, 2, 60, 4), (9, 2, 60, 3), (8, 2, 1, 2), (1, 2, 1, 2), (7, 0, 10, 1)],
)
def test_windows_are_equal_parts_that_fit(frames, halo, max_bytes, expected):
    """Ten bytes a frame; never fewer frames than the halo, which is what comes next from this window."""
    assert frames_per_window(frames, halo, frame_bytes=10, max_bytes=max_bytes) == expected
