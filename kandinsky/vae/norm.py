"""Spatial norm, SiLU and residual sum in plain PyTorch: for the CPU and other devices, and the oracle of `kernels`.

A spatial norm is `GroupNorm(x) * conv_y(z) + conv_b(z)` (SpatialNorm, arXiv 2209.09002) with 1x1x1 convolutions of the
latents z. These commute with nearest upsampling, so they are computed at the size of the latents and looked up.
Statistics and arithmetic are in float32, with one rounding at the end.

Legend: coefficients [2, C] float32, factor and offset of GroupNorm with weights, bias of the convolution before
included; latent [Tz, h, w, 2 C] conv_y and conv_b of the latents.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from kandinsky.vae.activation import Activation, Time, dense, doubled, latent_frames
from kandinsky.vae.decoder_weights import NORM_EPS, NormWeights
from kandinsky.vae.float8_kernel import LARGEST
from kandinsky.vae.rows import WHOLE, Rows


class Ops(Protocol):
    """What the decoder does between convolutions; a dataclass whose `rows` says which rows it sees."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def statistics(self, x: Activation, norm: NormWeights) -> Tensor:
        """Coefficients of the norm."""
        ...

    def normalise(
        self,
        x: Activation,
        coefficients: Tensor,
        latent: Tensor,
        *,
        start: int,
        out: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        """SiLU(spatial norm) of frames start.. to out [frames, H, W, C]; paired frames once.

        `scale` [C] multiplies it; float8 saturates.
        """
        ...

    def add(self, x: Activation, residual: Activation, bias: Tensor, norm: NormWeights | None) -> tuple[Tensor, Tensor]:
        """x + residual + bias, written over x, and its coefficients for the next norm (empty if there is none)."""
        ...


def latent_terms(z: Tensor, norm: NormWeights) -> Tensor:
    """[Tz, h, w, Z] to conv_y and conv_b side by side."""
    return F.linear(z, norm.latent_weight, norm.latent_bias)


@dataclass(frozen=True)
class PlainOps:
    """`Ops` anywhere."""

    rows: Rows = WHOLE

    def statistics(self, x: Activation, norm: NormWeights) -> Tensor:
        values = dense(x)
        alone = 1 if x.time is Time.PAIRED and x.first else 0  # a first frame that is shown once, among pairs
        parts = [(0.5, values[:alone]), (1.0, values[alone:])]
        moments = [moments_of(part, weight * len(part) * x.size[0]) for weight, part in parts if len(part)]
        # Of channels first, with the bias, then of their groups: mean of variances plus variance of means.
        _, centre, spread = merged(self.rows.gather(merged(torch.stack(moments))))
        means = (centre + norm.input_bias).unflatten(0, (norm.groups, -1))
        spread = spread.unflatten(0, (norm.groups, -1))
        mean = means.mean(1, keepdim=True)
        variance = (spread + (means - mean).square()).mean(1, keepdim=True)
        factor = (variance + NORM_EPS).rsqrt().expand_as(means).flatten() * norm.gamma
        return torch.stack([factor, (norm.input_bias - mean.expand_as(means).flatten()) * factor + norm.beta])

    def normalise(
        self,
        x: Activation,
        coefficients: Tensor,
        latent: Tensor,
        *,
        start: int,
        out: Tensor,
        scale: Tensor | None = None,
    ) -> None:
        values = dense(x)
        first, repeat = latent_frames(values.shape[0], latent.shape[0])
        size = x.size[0] // latent.shape[1]
        for i in range(out.shape[0]):
            t = start + i
            # A latent pixel's terms meet the size x size pixels that show it: broadcast, [h, size, w, size, C].
            terms = latent[0 if t < first else first + (t - first) // repeat].float()[:, None, :, None]
            factor, offset = terms.chunk(2, -1)
            pixels = values[t].float().unflatten(1, (-1, size)).unflatten(0, (-1, size))
            normed = torch.addcmul(coefficients[1], pixels, coefficients[0])
            modulated = torch.addcmul(offset, normed, factor)
            activated = F.silu(modulated, inplace=True).flatten(2, 3).flatten(0, 1)
            out[i] = activated if scale is None else (activated * scale).clamp(-LARGEST, LARGEST)

    def add(self, x: Activation, residual: Activation, bias: Tensor, norm: NormWeights | None) -> tuple[Tensor, Tensor]:
        x.data.copy_(x.data.float() + doubled(residual).float() + bias)
        return x.data, bias[:0] if norm is None else self.statistics(x, norm)


def moments_of(x: Tensor, weight: float) -> Tensor:
    """[T, H, W, C] to weight, mean and variance of each channel, float32 [3, C]."""
    variance, mean = torch.var_mean(x.float().flatten(0, 2), dim=0, correction=0)
    return torch.stack((torch.full_like(mean, weight), mean, variance))


def merged(moments: Tensor) -> Tensor:
    """Weight, mean and variance of several parts [parts, 3, C] to those of all together [3, C]."""
    weights, means, variances = moments.unbind(1)
    total = weights.sum(0)
    mean = (weights * means).sum(0) / total
    variance = (weights * (variances + (means - mean).square())).sum(0) / total
    return torch.stack((total, mean, variance))
