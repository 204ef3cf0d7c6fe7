"""A convolution's kernel in float8 e4m3, and who convolves with it.

It has a scale for each input channel, which the window is multiplied with, and one for each output channel. All are
powers of 2: they change where a number lies in the format's range, and no digit of it.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
LARGEST = 448.0
"""Of the format."""
CHANNELS = 128
"""What `float8_convolution` takes are multiples of this, in and out."""
SMALLEST = 2.0**-100
"""Of what is divided by: a channel of zeros has a scale too."""


class Convolve(Protocol):
    """A convolution with a `Float8Kernel`, without bias."""

    def __call__(self, window: Tensor, kernel: "Float8Kernel", out: Tensor, *, border: int) -> None:
        """Zero padding 1 in space, or `border` rows that the window has already; none in time.

        Args:
            window: float8 `[T, H + 2 border, W, I]`, contiguous.
            out: `[T - kt + 1, H, W, O]`, contiguous.
        """
        ...


@dataclass(frozen=True)
class Float8Kernel:
    """A kernel of three taps by three in space.

    Args:
        values: float8 `[O, kt 3 3 I]`.
        scale: float32 `[O]`: what sums are multiplied with.
        shape: `[O, I, kt, 3, 3]`, as an exact kernel has it.
        run: who convolves.
    """

    values: Tensor
    scale: Tensor
    shape: torch.Size
    run: Convolve

    @classmethod
    def of(cls, kernel: Tensor, input_scale: Tensor, run: Convolve) -> "Float8Kernel":
        """From `[O, I, kt, 3, 3]` and what the window's channels are multiplied with, `[I]`."""
        rows = (kernel.float().permute(0, 2, 3, 4, 1) / input_scale).flatten(1)
        scale = power_of_2(rows.abs().amax(1) / LARGEST)
        return cls((rows / scale[:, None]).to(FLOAT8).contiguous(), scale, kernel.shape, run)

    @property
    def dtype(self) -> torch.dtype:
        """Of the window."""
        return self.values.dtype

    def in_dtype(self, dtype: torch.dtype) -> Tensor:
        """What it stands for, `[O, I, kt, 3, 3]`, exact in every dtype of at least 4 digits."""
        outputs, inputs, *taps = self.shape
        rows = (self.values.float() * self.scale[:, None]).to(dtype).view(outputs, *taps, inputs)
        return rows.permute(0, 4, 1, 2, 3)  # channels_last_3d


def power_of_2(x: Tensor) -> Tensor:
    """The next one that is not smaller, of float32 numbers that are not negative."""
    mantissa, exponent = torch.frexp(x.clamp_min(SMALLEST))
    return ((exponent - (mantissa == 0.5).int() + 127) << 23).view(torch.float32)  # no rounding of a power
