"""Kernels against the plain path, and the whole decoder at full size, on a GPU."""

import pytest
import torch
from helpers import relative_error
from vae_helpers import FULL_CHANNELS, LAYOUTS, latents_of, our_frames, their_frames, tiny_autoencoder

from kandinsky.vae.activation import Activation, Time
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.decoder_weights import NormWeights
from kandinsky.vae.norm import PlainOps
from kandinsky.vae.stream import decode, to_host

pytestmark = pytest.mark.gpu


def activation(layout, channels: int) -> Activation:
    time, quarters, frames, stored = layout
    shape = (4, stored, 9, 13, channels) if quarters else (stored, 16, 24, channels)
    return Activation(torch.randn(shape, device="cuda").bfloat16(), frames, time, quarters)


def norm_weights(channels: int) -> NormWeights:
    vectors = [torch.randn(channels, device="cuda") for _ in range(3)]
    return NormWeights(*vectors, torch.empty(0), torch.empty(0), groups=32)


@pytest.mark.parametrize("channels", [32, 128, 512])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_equal_plain(layout, channels):
    from kandinsky.vae.kernels import TritonOps

    x, norm = activation(layout, channels), norm_weights(channels)
    plain, fast = PlainOps(), TritonOps()
    coefficients = plain.statistics(x, norm)
    assert relative_error(fast.statistics(x, norm), coefficients) < 1e-5
    count = x.stored_frames
    latent = torch.randn(2 + count % 2 if count > 1 else 1, 2, 3, 2 * channels, device="cuda").bfloat16()
    start = count // 2
    expected, out = (torch.full((count - start, 16, 24, channels), torch.nan, device="cuda") for _ in range(2))
    plain.normalise(x, coefficients, latent, start=start, out=expected)
    fast.normalise(x, coefficients, latent, start=start, out=out)
    assert relative_error(out, expected) < 1e-5


@pytest.mark.parametrize("layout", LAYOUTS)
def test_float8_equals_plain(layout):
    """But for the few numbers that lie in the middle between two of the format."""
    from kandinsky.vae.kernels import TritonOps

    x, norm = activation(layout, 128), norm_weights(128)
    coefficients = PlainOps().statistics(x, norm)
    coefficients[:, :4] *= 1e6  # saturates
    latent = torch.randn(2 + x.stored_frames % 2 if x.stored_frames > 1 else 1, 2, 3, 256, device="cuda").bfloat16()
    scale = 2.0 ** torch.randint(-3, 4, (128,), device="cuda")
    made = [torch.empty(x.stored_frames, 16, 24, 128, device="cuda", dtype=torch.float8_e4m3fn) for _ in range(2)]
    for ops, out in zip((PlainOps(), TritonOps()), made, strict=True):
        ops.normalise(x, coefficients, latent, start=0, out=out, scale=scale)
    expected, out = (one.float() for one in made)
    assert (out == 448).any()
    assert (out != expected).float().mean() < 1e-3
    assert relative_error(out, expected) < 1e-2


@pytest.mark.parametrize("layout", [one for one in LAYOUTS if one[0] is not Time.SPLIT])
def test_residual_sum_equals_plain(layout):
    from kandinsky.vae.kernels import TritonOps

    residual, norm, bias = activation(layout, 128), norm_weights(128), torch.randn(128, device="cuda")
    data = torch.randn(residual.frames, 16, 24, 128, device="cuda").bfloat16()
    expected, wanted = PlainOps().add(Activation(data.clone(), len(data)), residual, bias, norm)
    out, coefficients = TritonOps().add(Activation(data, len(data)), residual, bias, norm)
    assert torch.equal(out, expected)
    assert relative_error(coefficients, wanted) < 1e-5


@pytest.mark.parametrize("frames", [1, 4, 5])
def test_tiny_float32(frames):
    torch.backends.cudnn.allow_tf32 = False
    autoencoder = tiny_autoencoder()
    expected = their_frames(autoencoder, latents_of(frames))
    ours = our_frames(CausalDecoder.from_diffusers(autoencoder.cuda()), latents_of(frames).cuda())
    assert relative_error(ours, expected) < 1e-5


def test_full_size_rounds_no_more_than_diffusers():
    torch.backends.cudnn.allow_tf32 = False
    autoencoder = tiny_autoencoder(block_out_channels=FULL_CHANNELS, layers_per_block=3, norm_num_groups=32).cuda()
    z = torch.randn(5, 24, 32, 16, device="cuda").bfloat16()
    exact = their_frames(autoencoder, z.float())
    autoencoder.bfloat16()
    decoder = CausalDecoder.from_diffusers(autoencoder)
    ours = our_frames(decoder, z)
    assert relative_error(ours, exact) < 1.1 * relative_error(their_frames(autoencoder, z), exact)
    assert torch.equal(our_frames(decoder, z), ours)
    assert torch.equal(our_frames(decoder, z, memory_saving=True), ours)  # windows are small enough either way


def test_pinned_chunks_are_the_device_chunks():
    decoder = CausalDecoder.from_diffusers(tiny_autoencoder().cuda())
    on_device = list(decode(decoder, latents_of(9)))
    on_host = [chunk.clone() for chunk in to_host(decode(decoder, latents_of(9)))]
    assert all(chunk.is_pinned() for chunk in to_host(decode(decoder, latents_of(3))))
    for one, other in zip(on_device, on_host, strict=True):
        assert torch.equal(one.cpu(), other)
