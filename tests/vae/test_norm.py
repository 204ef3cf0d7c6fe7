"""What the decoder does between convolutions, against PyTorch's own GroupNorm of what is shown."""

import pytest
import torch
from torch.nn import functional as F
from vae_helpers import LAYOUTS

from kandinsky.vae.activation import Activation, Time, dense, doubled, latent_frames
from kandinsky.vae.decoder_weights import NORM_EPS, NormWeights
from kandinsky.vae.norm import PlainOps, latent_terms, merged, moments_of
from kandinsky.vae.rows import Whole

CHANNELS = 8


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def activation(layout):
    time, quarters, frames, stored = layout
    shape = (4, stored, 3, 4, CHANNELS) if quarters else (stored, 4, 6, CHANNELS)
    return Activation(random(*shape), frames, time, quarters)


def norm_weights():
    gamma, beta, bias = random(3, CHANNELS, seed=1)
    return NormWeights(gamma, beta, bias, random(2 * CHANNELS, 5, seed=2), random(2 * CHANNELS, seed=3), groups=4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_norm_and_silu(layout):
    """GroupNorm over all frames that are shown x conv_y + conv_b of the latents, doubled to its size."""
    x, norm = activation(layout), norm_weights()
    z = random(2 + x.frames % 2 if x.frames > 1 else 1, 2, 3, 5, seed=4)
    shown = (doubled(x) + norm.input_bias).movedim(-1, 0)[None]
    normed = F.group_norm(shown, norm.groups, norm.gamma, norm.beta, NORM_EPS)[0].movedim(0, -1)
    first, repeat = latent_frames(x.frames, len(z))
    terms = latent_terms(z, norm)[[0 if t < first else first + (t - first) // repeat for t in range(x.frames)]]
    factor, offset = terms.repeat_interleave(2, 1).repeat_interleave(2, 2).chunk(2, -1)
    expected = F.silu(normed * factor + offset)
    if x.time is Time.PAIRED:  # what is shown twice is written once
        expected = expected[::2]
    ops = PlainOps()
    coefficients, stored = ops.statistics(x, norm), len(dense(x))
    for start in {0, stored // 2}:
        out = torch.empty(stored - start, 4, 6, CHANNELS)
        ops.normalise(x, coefficients, latent_terms(z, norm), start=start, out=out)
        torch.testing.assert_close(out, expected[start:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout[0] is not Time.SPLIT])
def test_residual_sum(layout):
    residual, norm, bias = activation(layout), norm_weights(), random(CHANNELS, seed=5)
    x = random(residual.frames, 4, 6, CHANNELS, seed=6)
    data, coefficients = PlainOps().add(Activation(x.clone(), len(x)), residual, bias, norm)
    torch.testing.assert_close(data, x + doubled(residual) + bias)
    torch.testing.assert_close(coefficients, PlainOps().statistics(Activation(data, len(data)), norm))
    last = PlainOps().add(Activation(x.clone(), len(x)), residual, bias, None)[1]
    assert last.numel() == 0


def test_moments_of_parts_are_those_of_the_whole():
    """Also where a mean is large beside the variance."""
    x = 1000 + random(5, 4, 6, 3)
    parts = torch.stack([moments_of(x[:2], 2.0), moments_of(x[2:], 3.0)])
    torch.testing.assert_close(merged(parts), moments_of(x, 5.0), atol=1e-3, rtol=1e-6)


def test_statistics_are_of_all_rows():
    """Two strips that gather each other's moments have the coefficients of the whole picture."""
    x, norm = random(3, 4, 6, CHANNELS), norm_weights()
    strips = [Activation(x[:, :1], 3), Activation(x[:, 1:], 3)]
    seen = []

    class Listening(Whole):
        def gather(self, sums):
            seen.append(sums)
            return sums[None]

    for strip in strips:
        PlainOps(rows=Listening()).statistics(strip, norm)

    class Strip(Whole):
        def gather(self, _sums):
            return torch.stack(seen)

    expected = PlainOps().statistics(Activation(x, 3), norm)
    for strip in strips:
        torch.testing.assert_close(PlainOps(rows=Strip()).statistics(strip, norm), expected)
