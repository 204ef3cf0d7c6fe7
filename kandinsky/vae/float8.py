"""The decoder's convolutions in float8: which of them, with which scales, and where that runs. Lossy, by choice.

Those behind a norm are, conv1 and conv2 of each resnet: 95 % of the multiplications. What they convolve is SiLU of a
normalised activation. Our kernel takes multiples of 128 channels, which the published decoder has everywhere. The
others stay as they are: the first and the last, and those of upsampling and of shortcuts, which read the sum of all
before, whose size nothing bounds and whose rounding nothing would make small again.

float8 e4m3 holds 2^-9 to 448, four digits from 2^-6 on, so what matters is where a channel lies. Its size is known when
weights are loaded: a norm's result has unit variance over its group, then come gamma and beta, then the terms of the
latents, whose variance the configuration tells. Each channel gets the power of 2 that brings this estimate to 1 or just
below: values of 448 times the estimate do not saturate, and a channel of a sixteenth of it still has its digits.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from kandinsky.vae.causal import convolve
from kandinsky.vae.decoder_weights import CausalConv, DecoderConfig, DecoderWeights, NormWeights, Resnet
from kandinsky.vae.float8_kernel import CHANNELS, FLOAT8, Convolve, Float8Kernel, power_of_2

Convert = Callable[[DecoderWeights, DecoderConfig], DecoderWeights]
"""What becomes of a decoder's weights when they are loaded."""
CAPABILITY = (9, 0)
"""The kernel's tiles are those of Hopper's matrix instructions."""
MOST_OFF = 0.02
"""Relative difference from the same products summed in float32: bfloat16 rounds both by 0.002, sums are 0.002 off."""

_log = logging.getLogger(__name__)


def as_they_are(weights: DecoderWeights, _config: DecoderConfig) -> DecoderWeights:
    """Nothing becomes of them."""
    return weights


def emulated(window: Tensor, kernel: Float8Kernel, out: Tensor, *, border: int) -> None:
    """The same products by PyTorch, in the result's dtype, which has all of float8's numbers; see `Convolve`."""
    convolve(window.to(out.dtype), kernel.in_dtype(out.dtype), out, border=border)


def in_float8(
    weights: DecoderWeights, config: DecoderConfig, *, run: Convolve = emulated, channels: int = 1
) -> DecoderWeights:
    """Convolutions behind norms in float8, on any device.

    Args:
        run: carries them out.
        channels: those whose numbers of channels are multiples of this.
    """
    deviation, convs = 1 / config.scaling_factor, list(weights.causal_convs)

    def converted(conv: CausalConv, norm: NormWeights) -> CausalConv:
        if conv.in_channels % channels or conv.out_channels % channels:
            return conv
        scale = input_scale(norm, deviation)
        kernels = tuple(Float8Kernel.of(kernel, scale, run) for kernel in conv.kernels if isinstance(kernel, Tensor))
        convs[conv.slot] = replace(conv, kernels=kernels, input_scale=scale)
        return convs[conv.slot]

    def of_resnet(resnet: Resnet) -> Resnet:
        conv1, conv2 = converted(resnet.conv1, resnet.norm1), converted(resnet.conv2, resnet.norm2)
        return replace(resnet, conv1=conv1, conv2=conv2)

    levels = tuple(replace(level, resnets=tuple(map(of_resnet, level.resnets))) for level in weights.levels)
    return replace(weights, levels=levels, causal_convs=tuple(convs))


def input_scale(norm: NormWeights, deviation: float) -> Tensor:
    """What each channel of SiLU(spatial norm) is multiplied with before it is rounded, float32 `[C]`.

    Args:
        norm: before the convolution.
        deviation: of the latents.
    """
    # Of latents of this deviation and a constant 1: terms are linear in them, so moments are products of their rows.
    terms = torch.cat((norm.latent_weight.float() * deviation, norm.latent_bias.float()[:, None]), 1)
    factor, offset = terms.chunk(2)
    normed = norm.gamma.square() + norm.beta.square()
    square = normed * factor.square().sum(1) + 2 * norm.beta * (factor * offset).sum(1) + offset.square().sum(1)
    return 1 / power_of_2(square.clamp_min(0).sqrt())


def where_it_runs(
    weights: DecoderWeights, config: DecoderConfig, *, agree: Callable[[bool], bool] = bool
) -> DecoderWeights:
    """In float8 what our kernel takes, on a Hopper GPU where it runs; else as they are.

    Args:
        agree: whether it runs here -> whether it does for all who decode a picture together.
    """
    if all(channels % CHANNELS for channels in config.block_out_channels):
        return weights
    run = kernel_on(weights.out_bias.device)
    everywhere = agree(run is not None)
    return weights if run is None or not everywhere else in_float8(weights, config, run=run, channels=CHANNELS)


@cache
def kernel_on(device: torch.device) -> Convolve | None:
    """Our kernel if the device is a Hopper GPU and a launch succeeds, with the right result."""
    if device.type != "cuda" or torch.version.hip is not None or find_spec("triton") is None:
        return None
    if torch.cuda.get_device_capability(device) != CAPABILITY:
        return None
    try:
        from kandinsky.vae.float8_convolution import convolve as run

        launch(run, device)
    except Exception as error:  # noqa: BLE001  # Triton, compilers and drivers each have their own
        why = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        _log.warning("the VAE's float8 kernel does not run here, it stays as it is: %s", why)
        return None
    return run


@torch.inference_mode()
def launch(run: Convolve, device: torch.device) -> None:
    """One convolution of random numbers, of a picture that no tile fits.

    Raises:
        ArithmeticError: PyTorch's result of the same numbers is another.
    """
    place, count = {"device": device, "dtype": torch.bfloat16}, CHANNELS
    generator = torch.Generator(device).manual_seed(0)
    taps = torch.randn(count, count, 3, 3, 3, generator=generator, **place)
    window = torch.randn(4, 18, 20, count, generator=generator, **place).to(FLOAT8)
    kernel = Float8Kernel.of(taps, torch.ones(count, device=device), run)
    out, expected = (torch.full((2, 18, 20, count), torch.nan, **place) for _ in range(2))
    run(window, kernel, out, border=0)
    emulated(window, kernel, expected, border=0)
    error = (out.float() - expected.float()).norm() / expected.float().norm()
    if not error < MOST_OFF:
        raise ArithmeticError(f"it is {error:.2g} off")


EMULATED: Convert = partial(in_float8, run=emulated)
"""Rounded as float8 rounds, without its speed: for devices that have no kernel, and to compare with."""
