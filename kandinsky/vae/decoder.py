"""The decoder of the CogVideoX 3D causal VAE, from latents to pixels, chunk by chunk.

Computes what diffusers' `AutoencoderKLCogVideoX.decode` does, up to rounding and the order of sums, in another
arrangement: see `activation`, `decoder_weights`, `causal` and `norm`. Source: CogVideoX (arXiv 2408.06072). GroupNorm
statistics are per chunk, so the chunks (3, 2, 2, ... latent frames) are part of the function.

Doesn't encode, batch, or tile with blending.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from kandinsky.vae.activation import Activation, Time
from kandinsky.vae.best_ops import best_ops
from kandinsky.vae.causal import Fill, causal_convolution, convolve
from kandinsky.vae.decoder_weights import CausalConv, DecoderConfig, Level, NormWeights, Resnet, WeightReader
from kandinsky.vae.float8 import Convert, as_they_are
from kandinsky.vae.halos import Halos, HostHalos
from kandinsky.vae.norm import Ops, latent_terms
from kandinsky.vae.rows import WHOLE, Rows

WINDOW_BYTES = 500_000_000
"""Twice as much gains 1 % of the time (docs/benchmarks.md)."""


class CausalDecoder:
    """Weights of one decoder, ready to run; holds no state of a clip."""

    def __init__(
        self,
        state: Mapping[str, Tensor],
        config: DecoderConfig,
        *,
        ops: Ops | None = None,
        convert: Convert = as_they_are,
    ):
        """`state` is the state dict of diffusers' `decoder` module, on the device and in the dtype to run in."""
        self.config = config
        self.weights = convert(WeightReader(state, config).read(), config)
        example = state["conv_in.conv.weight"]
        self.device, self.dtype = example.device, example.dtype
        self.ops = ops or best_ops(self.device, config, dtype=self.dtype)

    @classmethod
    def from_diffusers(
        cls, autoencoder: Any, *, ops: Ops | None = None, convert: Convert = as_they_are
    ) -> "CausalDecoder":
        """From an `AutoencoderKLCogVideoX`; its parameters are shared where they need no rearranging."""
        config = DecoderConfig.from_mapping(autoencoder.config)
        state = {name: value.detach() for name, value in autoencoder.decoder.state_dict().items()}
        return cls(state, config, ops=ops, convert=convert)

    def open_clip(
        self, latents: Tensor, *, memory_saving: bool = False, rows: Rows = WHOLE, max_bytes: int = WINDOW_BYTES
    ) -> "Clip":
        """`latents` [T, h, w, Z], of these rows, tell the size; they are given to `decode_chunk` in chunks.

        Args:
            memory_saving: keep halos on the host.
            rows: those of the picture that are decoded here.
            max_bytes: most that a convolution's window may take, where the halo leaves a choice.
        """
        return Clip(self, latents, memory_saving=memory_saving, rows=rows, max_bytes=max_bytes)


class Clip:
    """One video on its way through the decoder: the halos of its convolutions."""

    def __init__(self, decoder: CausalDecoder, latents: Tensor, *, memory_saving: bool, rows: Rows, max_bytes: int):
        self.weights, self.rows = decoder.weights, rows
        self.ops = replace(decoder.ops, rows=rows)
        self.max_bytes = max_bytes
        kind = HostHalos if memory_saving else Halos
        self.halos = kind(decoder.weights.causal_convs, latents, border=rows.border)

    @torch.inference_mode()
    def decode_chunk(self, z: Tensor) -> Tensor:
        """[Tz, h, w, Z] latents (unscaled) to [frames, 8 h, 8 w, 3] float32 in about [-1, 1]."""
        weights = self.weights
        x = self.convolve_latents(z, weights.conv_in)
        coefficients = None
        for index, level in enumerate(weights.levels):
            after = weights.norm_out if index == len(weights.levels) - 1 else None
            for i, resnet in enumerate(level.resnets):
                following = level.resnets[i + 1].norm1 if i + 1 < len(level.resnets) else after
                if coefficients is None:
                    coefficients = self.ops.statistics(x, resnet.norm1)
                held = [x]
                del x  # so that the resnet can free it
                x, coefficients = self.resnet(held, coefficients, z, resnet, following)
            if level.upsample:
                x, coefficients = self.upsample(x, level), None
        assert coefficients is not None
        out = self.norm_conv(x, coefficients, z, weights.norm_out, weights.conv_out)
        patch = weights.conv_out.stride
        pixels = out.data.unflatten(-1, (patch, patch, -1)).transpose(2, 3)  # [T, H / P, P, W / P, P, 3]
        return pixels.flatten(3, 4).flatten(1, 2).float() + weights.out_bias

    def convolve_latents(self, z: Tensor, conv: CausalConv) -> Activation:
        def fill(start: int, stop: int, out: Tensor) -> None:
            out.copy_(z[start:stop])

        like = Activation(z, z.shape[0])
        return self.causal_convolution(conv, fill, like)

    def norm_conv(
        self,
        x: Activation,
        coefficients: Tensor,
        z: Tensor,
        norm: NormWeights,
        conv: CausalConv,
        *,
        in_place: bool = False,
    ) -> Activation:
        """conv(SiLU(norm(x))), the convolution's bias left out; `in_place` may write it over x."""
        latent = latent_terms(z, norm)

        def fill(start: int, stop: int, out: Tensor) -> None:  # noqa: ARG001
            self.ops.normalise(x, coefficients, latent, start=start, out=out, scale=conv.input_scale)

        return self.causal_convolution(conv, fill, x, in_place=in_place)

    def causal_convolution(
        self, conv: CausalConv, fill: Fill, like: Activation, *, in_place: bool = False
    ) -> Activation:
        limits = {"rows": self.rows, "max_bytes": self.max_bytes}
        return causal_convolution(conv, self.halos, fill, like=like, in_place=in_place, **limits)

    def resnet(
        self, held: list[Activation], coefficients: Tensor, z: Tensor, weights: Resnet, following: NormWeights | None
    ) -> tuple[Activation, Tensor | None]:
        """`held` gives its only element away: the largest activation is freed as soon as it was read."""
        x = held.pop()
        hidden = self.norm_conv(x, coefficients, z, weights.norm1, weights.conv1)
        residual = x
        if weights.shortcut is not None:
            residual = Activation(F.linear(x.data, weights.shortcut), x.frames, x.time, x.quarters)
        del x
        coefficients = self.ops.statistics(hidden, weights.norm2)
        hidden = self.norm_conv(hidden, coefficients, z, weights.norm2, weights.conv2, in_place=True)
        data, coefficients = self.ops.add(hidden, residual, weights.bias, following)
        return Activation(data, hidden.frames), coefficients if following else None

    def upsample(self, x: Activation, level: Level) -> Activation:
        """Double height and width, time too where the level says so, and convolve each frame: all of it in quarters."""
        frames, (height, width), channels = x.frames, x.size, level.upsample[0].shape[0]
        border, source = self.rows.border, x.data
        if border:
            source = x.data.new_empty(frames, height + 2 * border, width, x.channels)
            source[:, border:-border] = x.data
            self.rows.fill_border(source)
        data = x.data.new_empty(4, frames, height + 1, width + 1, channels)
        for quarter, kernel in zip(data, level.upsample, strict=True):
            convolve(source, kernel, quarter, border=border)
        if not level.doubles_time:
            return Activation(data, frames, quarters=True)
        return Activation(data, 2 * frames - frames % 2, Time.PAIRED, quarters=True)
