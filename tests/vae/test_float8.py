"""The decoder in float8: what is rounded, with which scales, and where."""

import logging
import sys
from dataclasses import replace
from functools import partial
from types import ModuleType

import pytest
import torch
from helpers import relative_error
from vae_helpers import latents_of, our_frames, smallest_autoencoder, tiny_autoencoder

from kandinsky.vae import float8
from kandinsky.vae.decoder import CausalDecoder
from kandinsky.vae.decoder_weights import NormWeights
from kandinsky.vae.float8 import EMULATED, emulated, in_float8, input_scale, where_it_runs
from kandinsky.vae.float8_kernel import FLOAT8, Float8Kernel

CUDA = torch.device("cuda", 0)
Z = latents_of(4, 2, 3)


def decoded(autoencoder, **settings):
    return our_frames(CausalDecoder.from_diffusers(autoencoder, **settings), Z)


def test_convolutions_behind_norms_are_rounded(decoder):
    converted = in_float8(decoder.weights, decoder.config)
    dtypes = [conv.dtype for conv in converted.causal_convs]
    assert dtypes == [torch.float32] + [FLOAT8] * (len(dtypes) - 2) + [torch.float32]
    assert converted.causal_convs[0] is decoder.weights.conv_in
    assert converted.causal_convs[-1] is converted.conv_out is decoder.weights.conv_out
    for level, before in zip(converted.levels, decoder.weights.levels, strict=True):
        assert level.upsample is before.upsample
        for resnet in level.resnets:
            assert converted.causal_convs[resnet.conv1.slot] is resnet.conv1
            assert converted.causal_convs[resnet.conv2.slot] is resnet.conv2


def test_frames_are_nearly_those_of_the_exact_decoder(autoencoder, decoder):
    """As many digits as float8 has; and the same whatever the windows and wherever the halos are."""
    fast = CausalDecoder.from_diffusers(autoencoder, convert=EMULATED)
    found, exact = our_frames(fast, Z), our_frames(decoder, Z)
    assert 1e-3 < relative_error(found, exact) < 0.05
    assert torch.equal(our_frames(fast, Z, memory_saving=True), found)
    assert relative_error(our_frames(fast, Z, max_bytes=1), found) < 1e-6


def uneven(autoencoder):
    """Norms whose channels differ a millionfold, and the same function: the convolution behind undoes it, as far as
    SiLU lets it. Channels are made so large that SiLU only cuts, or so small that it only halves."""
    size = torch.logspace(-4, 2, 16)
    state = autoencoder.decoder
    for name, norm in state.named_modules():
        if name.endswith(("norm1", "norm2")):
            norm.norm_layer.weight.mul_(size)
            norm.norm_layer.bias.mul_(size)
            norm.conv_b.conv.weight.mul_(size.view(-1, 1, 1, 1, 1))
            norm.conv_b.conv.bias.mul_(size)
        if name.endswith(("conv1.conv", "conv2.conv")):
            norm.weight.div_(size.view(-1, 1, 1, 1))
    return autoencoder


def test_channels_of_very_different_sizes():
    """With the scale of each channel the error is that of even ones; without, small channels vanish."""
    autoencoder = uneven(smallest_autoencoder())
    exact = decoded(autoencoder)
    assert relative_error(decoded(autoencoder, convert=EMULATED), exact) < 0.05
    scale = float8.input_scale
    try:
        float8.input_scale = lambda norm, deviation: torch.ones_like(scale(norm, deviation))
        assert not relative_error(decoded(autoencoder, convert=EMULATED), exact) < 0.15
    finally:
        float8.input_scale = scale


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
def test_a_scale_brings_what_a_norm_makes_to_one(size):
    """Against random latents and a normalised activation."""
    generator = torch.Generator().manual_seed(0)
    gamma, beta, bias = (size * torch.randn(64, generator=generator) for _ in range(3))
    weight = torch.randn(128, 16, generator=generator) * 0.3
    offsets = torch.cat((torch.ones(64), bias))
    weight[64:] *= size
    norm = NormWeights(gamma, beta, torch.zeros(64), weight, offsets, groups=32)
    z = 1.4 * torch.randn(20000, 16, generator=generator)
    factor, offset = (z @ weight.T + offsets).chunk(2, -1)
    made = (torch.randn(20000, 64, generator=generator) * gamma + beta) * factor + offset
    spread = (made * input_scale(norm, 1.4)).square().mean(0).sqrt()
    assert ((spread > 0.49) & (spread < 1.02)).all()


def test_what_is_too_large_saturates(decoder):
    """Instead of being no number."""
    conv = in_float8(decoder.weights, decoder.config).levels[0].resnets[0].conv1
    out = torch.empty(2, 4, 6, conv.in_channels, dtype=conv.dtype)
    x = torch.full((2, 4, 6, conv.in_channels), 1e6)
    from kandinsky.vae.activation import Activation
    from kandinsky.vae.norm import PlainOps

    coefficients = torch.stack((torch.ones(conv.in_channels), torch.zeros(conv.in_channels)))
    latent = torch.cat((torch.ones(2, 2, 3, conv.in_channels), torch.zeros(2, 2, 3, conv.in_channels)), -1)
    PlainOps().normalise(Activation(x, 2), coefficients, latent, start=0, out=out, scale=conv.input_scale)
    assert (out.float() == 448).all()


def test_channels_that_a_kernel_does_not_take_stay_as_they_are():
    autoencoder = smallest_autoencoder(block_out_channels=(16, 32, 32, 32))
    decoder = CausalDecoder.from_diffusers(autoencoder, convert=partial(in_float8, channels=32))
    kinds = {(conv.in_channels, conv.out_channels, conv.dtype) for conv in decoder.weights.causal_convs[1:-1]}
    assert kinds == {(32, 32, FLOAT8), (32, 16, torch.float32), (16, 16, torch.float32)}
    assert relative_error(our_frames(decoder, Z), decoded(autoencoder)) < 0.05


def test_a_narrow_decoder_asks_for_no_kernel(decoder, monkeypatch):
    monkeypatch.setattr(float8, "kernel_on", lambda _device: pytest.fail("nothing to launch"))
    assert where_it_runs(decoder.weights, decoder.config) is decoder.weights


def test_an_emulated_convolution_is_that_of_the_numbers():
    kernel = Float8Kernel.of(torch.randn(4, 16, 2, 3, 3), torch.full((16,), 0.5), emulated)
    window, out = torch.randn(3, 5, 6, 16).to(FLOAT8), torch.empty(2, 5, 6, 4)
    kernel.run(window, kernel, out, border=0)
    x = window.float().permute(3, 0, 1, 2)[None]
    expected = torch.nn.functional.conv3d(x, kernel.in_dtype(torch.float32), padding=(0, 1, 1))[0]
    torch.testing.assert_close(out, expected.permute(1, 2, 3, 0), atol=1e-4, rtol=1e-4)


def test_a_cpu_stays_exact(decoder):
    wide = replace(decoder.config, block_out_channels=(128, 128, 128, 128))
    assert where_it_runs(decoder.weights, wide) is decoder.weights


@pytest.fixture
def card(monkeypatch):
    """A card, and what a launch does there."""

    def change(run, *, capability=(9, 0), hip=None, triton=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(float8, "find_spec", lambda _name: object() if triton else None)
        module = ModuleType("kandinsky.vae.float8_convolution")
        module.convolve = run
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(float8, "launch", lambda run, _device: launch(run, torch.device("cpu")))
        float8.kernel_on.cache_clear()

    launch = float8.launch
    yield change
    float8.kernel_on.cache_clear()


def fails(*_arguments, **_settings):
    """As Triton does without a C compiler."""
    raise FileNotFoundError("cc")


def wrong(window, kernel, out, *, border):
    """Not its last row."""
    emulated(window, kernel, out, border=border)
    out[-1, -1] = 0


def test_a_hopper_gpu_gets_the_kernel(card):
    card(emulated)
    assert float8.kernel_on(CUDA) is emulated


@pytest.mark.parametrize(
    ("run", "machine"),
    [
        (fails, {}),
        (wrong, {}),
        (emulated, {"capability": (8, 9)}),
        (emulated, {"hip": "7.0"}),
        (emulated, {"triton": False}),
    ],
)
def test_other_machines_do_not(card, caplog, run, machine):
    card(run, **machine)
    with caplog.at_level(logging.WARNING):
        assert float8.kernel_on(CUDA) is None
    said = {fails: "FileNotFoundError", wrong: "ArithmeticError"}
    assert bool(caplog.text) == (run in said)
    assert said.get(run, "") in caplog.text


@pytest.mark.parametrize("everywhere", [True, False])
def test_all_who_decode_together_do_the_same(decoder, monkeypatch, everywhere):
    monkeypatch.setattr(float8, "kernel_on", lambda _device: emulated)
    monkeypatch.setattr(float8, "CHANNELS", 16)
    asked = []
    convert = partial(where_it_runs, agree=lambda one: asked.append(one) or everywhere)
    found = convert(decoder.weights, decoder.config)
    assert asked == [True]
    assert (found is decoder.weights) == (not everywhere)


@pytest.mark.gpu
@pytest.mark.timeout(90)
def test_the_kernel_decodes_what_is_emulated():
    """Halos on the host too, and the same bits each time."""
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("needs a Hopper GPU")
    autoencoder = tiny_autoencoder(block_out_channels=(128, 128, 128, 128), norm_num_groups=32).cuda().bfloat16()
    z = latents_of(5, 6, 10).cuda().bfloat16()
    exact, rounded, fast = (
        CausalDecoder.from_diffusers(autoencoder, convert=convert)
        for convert in (float8.as_they_are, EMULATED, where_it_runs)
    )
    assert fast.weights.levels[0].resnets[0].conv1.kernels[0].run is not emulated
    found, expected = our_frames(fast, z), our_frames(exact, z)
    error = relative_error(found, expected)
    assert 1e-3 < error < 0.1
    assert error < 1.1 * relative_error(our_frames(rounded, z), expected)
    assert torch.equal(our_frames(fast, z), found)
    assert torch.equal(our_frames(fast, z, memory_saving=True), found)
