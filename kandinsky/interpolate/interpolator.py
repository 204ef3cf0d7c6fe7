"""The network with its weights, as a function from frames to the frames between them.

On a GPU it runs in bfloat16, on a CPU in float32. The weights are part of the package.
"""

from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from kandinsky.interpolate.cuts import are_cuts
from kandinsky.interpolate.network import MULTIPLE, FlowNetwork

WEIGHTS = Path(__file__).with_name("weights.safetensors")
PIXELS = 8 * 672 * 384
"""Made at once: fewer leave a GPU idle, more need memory."""


class Interpolator:
    """Makes frames between frames; see `stream.Between`.

    Args:
        network: on its device.
        stream: on a GPU, one to work on beside others. It is the same for all videos: libraries keep memory for each.
    """

    def __init__(self, network: FlowNetwork, stream: torch.cuda.Stream | None = None):
        self.network, self.stream = network, stream

    @torch.inference_mode()
    def __call__(self, frames: Tensor, factor: int) -> Tensor:
        """Frames uint8 `[n, H, W, 3]` to those in between, uint8 `[n - 1, factor - 1, H, W, 3]`.

        Where a scene ends, the nearer of the two frames is held.
        """
        gaps, (height, width) = len(frames) - 1, frames.shape[1:3]
        made = frames.new_empty((gaps, factor - 1, height, width, 3))
        times = torch.arange(1, factor, dtype=torch.float32, device=frames.device) / factor
        step = max(1, PIXELS // (height * width * (factor - 1)))
        for start in range(0, gaps, step):
            part = frames[start : min(start + step, gaps) + 1]
            made[start : start + step] = self._part(part, times)
        return made

    def _part(self, frames: Tensor, times: Tensor) -> Tensor:
        """`[n, H, W, 3]` to `[n - 1, len(times), H, W, 3]`, all at once."""
        height, width = frames.shape[1:3]
        pictures = padded(frames.permute(0, 3, 1, 2).float() / 255)
        first, second = pictures[:-1], pictures[1:]
        pairs, count = len(first), len(times)
        t = times.repeat(pairs)
        a, b = (each.repeat_interleave(count, dim=0) for each in (first, second))
        made = self.network(a, b, t).frame
        cuts = are_cuts(first, second).repeat_interleave(count).view(-1, 1, 1, 1)
        held = torch.where(t.view(-1, 1, 1, 1) < 0.5, a, b)
        made = torch.where(cuts, held, made)[:, :, :height, :width]
        whole = (made * 255).round().clamp(0, 255).to(torch.uint8)
        return whole.permute(0, 2, 3, 1).reshape(pairs, count, height, width, 3)


def padded(pictures: Tensor) -> Tensor:
    """`[B, 3, H, W]` with its last row and column repeated up to multiples that the network takes."""
    height, width = pictures.shape[2:]
    return F.pad(pictures, (0, -width % MULTIPLE, 0, -height % MULTIPLE), mode="replicate")


@cache
def load_interpolator(device: torch.device) -> Interpolator:
    """The network with the package's weights on a device; each is loaded once."""
    with torch.device("meta"):
        network = FlowNetwork()
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    memory = torch.channels_last if device.type == "cuda" else torch.contiguous_format
    read = {name: value.to(device, dtype) for name, value in load_file(WEIGHTS).items()}
    weights = {
        name: value.contiguous(memory_format=memory) if value.ndim == 4 else value for name, value in read.items()
    }
    network.load_state_dict(weights, assign=True)
    stream = torch.cuda.Stream(device) if device.type == "cuda" else None
    return Interpolator(network.eval().requires_grad_(False), stream)
