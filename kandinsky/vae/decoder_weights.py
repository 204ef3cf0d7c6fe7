"""The decoder of diffusers' `AutoencoderKLCogVideoX`, rearranged once at load.

* `conv_y` and `conv_b` of a norm are one matrix.
* A convolution's bias is not added by the convolution (that costs cuDNN a pass) but by whoever reads its result next.
* Kernels after nearest upsampling are summed over the taps that see the same copy (see `activation`), in float32 with
  one rounding: the same function up to rounding, with 4/9 (space) and 2/3 (time) of the multiplications.

Source of the architecture: CogVideoX (arXiv 2408.06072), diffusers' `autoencoder_kl_cogvideox.py`. Doesn't load files.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from kandinsky.vae.float8_kernel import Float8Kernel

NORM_EPS = 1e-6
"""diffusers' spatial norm has it as a constant: the configuration's `norm_eps` is for the encoder only."""
OUT_PATCH = 4
"""The last convolution has 3 output channels, so reading bounds it; 4x4 pixels at once read a quarter as much."""


@dataclass(frozen=True)
class DecoderConfig:
    block_out_channels: tuple[int, ...]
    layers_per_block: int
    latent_channels: int
    out_channels: int
    norm_num_groups: int
    temporal_compression_ratio: int
    scaling_factor: float

    @classmethod
    def from_mapping(cls, config: Mapping[str, Any]) -> "DecoderConfig":
        """From diffusers' `config.json`."""
        if config.get("act_fn", "silu") not in ("silu", "swish"):
            raise ValueError(f"the VAE's act_fn is {config['act_fn']!r}; supported: silu, swish")
        if config.get("use_post_quant_conv", False):
            raise ValueError("the VAE has use_post_quant_conv=True; supported: False")
        ratio = int(config["temporal_compression_ratio"])
        if ratio < 1 or ratio & (ratio - 1):
            raise ValueError(f"the VAE's temporal_compression_ratio is {ratio}; supported: powers of 2")
        names = ("layers_per_block", "latent_channels", "out_channels", "norm_num_groups", "scaling_factor")
        return cls(
            block_out_channels=tuple(config["block_out_channels"]),
            temporal_compression_ratio=ratio,
            **{name: config[name] for name in names},
        )

    @property
    def doublings(self) -> int:
        """How many levels end by doubling time."""
        return self.temporal_compression_ratio.bit_length() - 1


@dataclass(frozen=True)
class NormWeights:
    gamma: Tensor  # [C] float32
    beta: Tensor  # [C] float32
    input_bias: Tensor  # [C] float32, of the convolution before
    latent_weight: Tensor  # [2 C, Z]: conv_y, conv_b
    latent_bias: Tensor  # [2 C]
    groups: int


@dataclass(frozen=True)
class CausalConv:
    """One kernel [O, I, 3, 3, 3], or one [O, I, 2, 3, 3] each for even and odd frames of paired input.

    A kernel of P x P output pixels at once is [P P O, I, 3, 2 + P, 2 + P], with stride P.
    """

    kernels: tuple[Tensor | Float8Kernel, ...]
    scale: int  # its input's height over the latents'
    slot: int  # which halo is its own
    input_scale: Tensor | None = None  # [I] float32: what its input is multiplied with, in float8

    @property
    def dtype(self) -> torch.dtype:
        """Of its input."""
        return self.kernels[0].dtype

    @property
    def halo(self) -> int:
        return self.kernels[0].shape[2] - 1

    @property
    def stride(self) -> int:
        return self.kernels[0].shape[-1] - 2

    @property
    def in_channels(self) -> int:
        return self.kernels[0].shape[1]

    @property
    def out_channels(self) -> int:
        return self.kernels[0].shape[0]


@dataclass(frozen=True)
class Resnet:
    norm1: NormWeights
    conv1: CausalConv
    norm2: NormWeights
    conv2: CausalConv
    shortcut: Tensor | None  # [O, I]
    bias: Tensor  # [O] float32: of conv2, of the shortcut and of what it was given


@dataclass(frozen=True)
class Level:
    """Resnets of one resolution; `upsample` are the kernels [O, I, 2, 2] of the four quarters, none in the last."""

    resnets: tuple[Resnet, ...]
    upsample: tuple[Tensor, ...]
    doubles_time: bool


@dataclass(frozen=True)
class DecoderWeights:
    conv_in: CausalConv
    levels: tuple[Level, ...]
    norm_out: NormWeights
    conv_out: CausalConv
    out_bias: Tensor  # [out_channels] float32
    causal_convs: tuple[CausalConv, ...]  # all of them, by slot


class WeightReader:
    """Walks the state dict of the decoder in the order in which it runs, carrying the bias not yet added."""

    def __init__(self, state: Mapping[str, Tensor], config: DecoderConfig):
        self.state = state
        self.config = config
        self.scale = 1
        self.convs: list[CausalConv] = []
        self.pending = torch.empty(0)  # [C] float32

    def read(self) -> DecoderWeights:
        levels = len(self.config.block_out_channels)
        conv_in = self.causal_conv("conv_in")
        self.pending = self.bias("conv_in.conv")
        return DecoderWeights(
            conv_in=conv_in,
            levels=tuple(self.level(index, last=index == levels - 1) for index in range(levels)),
            norm_out=self.norm("norm_out"),
            conv_out=self.causal_conv("conv_out", patch=min(OUT_PATCH, self.scale)),
            out_bias=self.bias("conv_out.conv"),
            causal_convs=tuple(self.convs),
        )

    def bias(self, name: str) -> Tensor:
        return self.state[f"{name}.bias"].float()

    def level(self, index: int, *, last: bool) -> Level:
        names = [f"mid_block.resnets.{i}" for i in range(2)] if index == 0 else []
        names += [f"up_blocks.{index}.resnets.{i}" for i in range(self.config.layers_per_block + 1)]
        paired = 0 < index <= self.config.doublings
        resnets = tuple(self.resnet(name, paired=paired and i == 0) for i, name in enumerate(names))
        upsample = ()
        if not last:
            name = f"up_blocks.{index}.upsamplers.0.conv"
            upsample = quarter_kernels(self.state[f"{name}.weight"])
            self.pending = self.bias(name)
            self.scale *= 2
        return Level(resnets, upsample, doubles_time=not last and index < self.config.doublings)

    def resnet(self, name: str, *, paired: bool) -> Resnet:
        norm1 = self.norm(f"{name}.norm1")
        conv1 = self.causal_conv(f"{name}.conv1", paired=paired)
        bias, self.pending = self.pending, self.bias(f"{name}.conv1.conv")
        norm2 = self.norm(f"{name}.norm2")
        conv2 = self.causal_conv(f"{name}.conv2")
        shortcut = self.state.get(f"{name}.conv_shortcut.weight")
        if shortcut is not None:
            shortcut = shortcut.flatten(1).contiguous()
            bias = shortcut.float() @ bias + self.bias(f"{name}.conv_shortcut")
        bias = bias + self.bias(f"{name}.conv2.conv")
        self.pending = torch.zeros_like(bias)
        return Resnet(norm1, conv1, norm2, conv2, shortcut, bias)

    def norm(self, name: str) -> NormWeights:
        both = [f"{name}.conv_y.conv", f"{name}.conv_b.conv"]
        return NormWeights(
            gamma=self.state[f"{name}.norm_layer.weight"].float(),
            beta=self.bias(f"{name}.norm_layer"),
            input_bias=self.pending,
            latent_weight=torch.cat([self.state[f"{n}.weight"].flatten(1) for n in both]),
            latent_bias=torch.cat([self.state[f"{n}.bias"] for n in both]),
            groups=self.config.norm_num_groups,
        )

    def causal_conv(self, name: str, *, paired: bool = False, patch: int = 1) -> CausalConv:
        weight = self.state[f"{name}.conv.weight"]
        kernels = pair_kernels(weight) if paired else (patch_kernel(weight, patch),)
        kernels = tuple(k.contiguous(memory_format=torch.channels_last_3d) for k in kernels)
        self.convs.append(CausalConv(kernels, self.scale, slot=len(self.convs)))
        return self.convs[-1]


def patch_kernel(weight: Tensor, patch: int) -> Tensor:
    """[O, I, 3, 3, 3] to the kernel of patch x patch neighbouring results, channels in order (row, column, O)."""
    if patch == 1:
        return weight
    out, channels = weight.shape[:2]
    kernel = weight.new_zeros(patch, patch, out, channels, 3, patch + 2, patch + 2)
    for row in range(patch):
        for column in range(patch):
            kernel[row, column, ..., row : row + 3, column : column + 3] = weight
    return kernel.flatten(0, 2)


def pair_kernels(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Kernels over single frames for the even and the odd frames of a convolution over doubled ones.

    Even: the two older taps see the frame before; odd: the two newer ones see this frame.
    """
    old, middle, new = weight.float().unbind(2)
    even, odd = torch.stack([old + middle, new], 2), torch.stack([old, middle + new], 2)
    return even.to(weight.dtype), odd.to(weight.dtype)


def quarter_kernels(weight: Tensor) -> tuple[Tensor, ...]:
    """[O, I, 3, 3] after doubling height and width to four [O, I, 2, 2] before it, row parity first."""
    w = weight.float()

    def merge(x: Tensor, parity: int, dim: int) -> Tensor:
        before, middle, after = x.unbind(dim)
        pair = (before + middle, after) if parity else (before, middle + after)
        return torch.stack(pair, dim)

    quarters = [merge(merge(w, down, 2), right, 3) for down in range(2) for right in range(2)]
    return tuple(q.to(weight.dtype).contiguous(memory_format=torch.channels_last) for q in quarters)
