"""How an activation lies in memory where that is not simply `[frames, height, width, channels]`.

Nearest upsampling copies, so it is never carried out here; the readers look the copy's source up instead:

* space: a 3x3 convolution after doubling height and width is four 2x2 convolutions before it, one for each parity of
  (row, column), "quarters". Each is a plain padded convolution, so a quarter has one row and one column too many; which
  ones depends on its parity.
* time: frames doubled in time stay single (`PAIRED`). The causal convolution that follows has one kernel for even and
  one for odd results, which are stored one after the other (`SPLIT`).

With an odd number of frames the first one is not doubled (CogVideoX: the first latent frame is one pixel frame).

Shapes: [T, H, W, C] stored frames, rows, columns, channels.
"""

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor


class Time(Enum):
    """Which stored frame a frame is."""

    NATURAL = 0
    PAIRED = 1
    SPLIT = 2


@dataclass(frozen=True)
class Activation:
    """The result of a convolution, without its bias, as it was written.

    `data` is [T, H, W, C], or [4, T, H/2 + 1, W/2 + 1, C] in quarters; `frames` are the frames that it stands for.
    """

    data: Tensor
    frames: int
    time: Time = Time.NATURAL
    quarters: bool = False

    @property
    def stored_frames(self) -> int:
        return self.data.shape[-4]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        height, width = self.data.shape[-3:-1]
        return (2 * (height - 1), 2 * (width - 1)) if self.quarters else (height, width)

    @property
    def channels(self) -> int:
        return self.data.shape[-1]

    @property
    def first(self) -> int:
        """1 where the first frame stands alone, else 0."""
        return self.frames % 2 if self.time is not Time.NATURAL else 0

    @property
    def pixels(self) -> float:
        """What statistics divide by. A single first frame among pairs counts half of a stored frame."""
        alone = 0.5 if self.time is Time.PAIRED and self.first else 0
        height, width = self.size
        return (self.stored_frames - alone) * height * width


def dense(x: Activation) -> Tensor:
    """[T, H, W, C] in natural order; paired frames stay single."""
    data = x.data
    if x.quarters:
        height, width = x.size
        rows, columns = height // 2, width // 2
        whole = data.new_empty(x.stored_frames, height, width, x.channels)
        for quarter in range(4):
            down, right = divmod(quarter, 2)
            whole[:, down::2, right::2] = data[quarter, :, down : down + rows, right : right + columns]
        data = whole
    if x.time is Time.SPLIT:
        half = (x.frames + x.first) // 2
        order = torch.empty(x.frames, dtype=torch.long)
        order[torch.arange(x.frames)] = torch.tensor([split_source(t, x.first, half) for t in range(x.frames)])
        data = data[order.to(data.device)]
    return data


def doubled(x: Activation) -> Tensor:
    """[frames, H, W, C], paired frames repeated."""
    data = dense(x)
    if x.time is not Time.PAIRED:
        return data
    return data[[(t + x.first) // 2 for t in range(x.frames)]]


def split_source(frame: int, first: int, half: int) -> int:
    """Where `SPLIT` stores a frame: even results in [0, half), odd ones behind them."""
    odd = (frame + first) % 2 if frame > 0 else 0
    return (frame + first) // 2 + odd * (half - first)


def latent_frames(frames: int, latents: int) -> tuple[int, int]:
    """(first, repeat): frame t shows latent frame 0 if t < first, else first + (t - first) // repeat."""
    first = 1 if frames > 1 and frames % 2 == 1 else 0
    return first, max((frames - first) // max(latents - first, 1), 1)
