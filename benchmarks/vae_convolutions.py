"""Which convolutions a piece of the VAE's decoder makes, and what each of them takes by itself.

They are read off PyTorch's profiler, which notes the shapes that its operators are called with: what is found is what
runs, whatever the decoder's own functions are called.
"""

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import torch
from measure import Timing, measure
from torch.profiler import ProfilerActivity, profile

from kandinsky.vae.causal import convolve

OPERATORS = ("aten::cudnn_convolution", "aten::mkldnn_convolution")
"""Those that `convolve` calls, on a GPU and on a CPU."""


@dataclass(frozen=True)
class Convolution:
    """Shapes as `convolve` takes them.

    Args:
        x: `[T, H, W, I]`.
        kernel: `[O, I, kt, 2 + P, 2 + P]`, or `[O, I, 2, 2]`.
    """

    x: tuple[int, ...]
    kernel: tuple[int, ...]

    @property
    def out(self) -> tuple[int, ...]:
        """Of its result."""
        frames, height, width, _ = self.x
        if len(self.kernel) == 4:
            return frames, height + 1, width + 1, self.kernel[0]
        patch = self.kernel[-1] - 2
        return frames - self.kernel[2] + 1, height // patch, width // patch, self.kernel[0]

    @property
    def tflop(self) -> float:
        """Of the function: a kernel of P x P pixels at once holds zeros, which don't count."""
        if len(self.kernel) == 4:
            return 2e-12 * math.prod(self.x[:3]) * math.prod(self.kernel)
        patch = self.kernel[-1] - 2
        frames, height, width, _ = self.x
        outputs = (frames - self.kernel[2] + 1) * height * width * (self.kernel[0] // patch**2)
        return 2e-12 * outputs * self.kernel[1] * self.kernel[2] * 9


def convolutions(run: Callable[[], object]) -> Counter[Convolution]:
    """How often each convolution is made while `run` runs."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiler:
        run()
    found: Counter[Convolution] = Counter()
    for event in profiler.key_averages(group_by_input_shape=True):
        if event.key in OPERATORS:
            x, kernel = event.input_shapes[:2]
            # A 3D convolution is of one clip [1, I, T, H, W], a 2D one of frames [T, I, H, W].
            sizes = (x[2], x[3], x[4], x[1]) if len(kernel) == 5 else (x[0], x[2], x[3], x[1])
            found[Convolution(tuple(sizes), tuple(kernel))] += event.count
    assert found, f"none of {', '.join(OPERATORS)} ran"
    return found


def timed(one: Convolution, device: torch.device, dtype: torch.dtype) -> Timing:
    """One convolution by itself, on random input that is not in the cache."""
    layout = torch.channels_last_3d if len(one.kernel) == 5 else torch.channels_last
    place = {"device": device, "dtype": dtype}
    x, out = torch.randn(one.x, **place), torch.empty(one.out, **place)
    kernel = torch.randn(one.kernel, **place).mul_(0.02).contiguous(memory_format=layout)
    repeats = 30 if device.type == "cuda" else 1
    return measure(
        lambda: convolve(x, kernel, out, border=0), device=device, tflop=one.tflop, repeats=repeats, cold=True
    )
