"""Triplets of real videos: a frame, one after it, and one between them that was left out.

Crops are mirrored, transposed, turned back in time, resized and given other orders of colours, so that few videos go
a long way. Nothing waits for the device: lists as indices would.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.training.motion.synthesis import Triplets

SMALLEST = 0.6
"""Most that a crop is made smaller by."""


class Clips:
    """Draws triplets from videos: half of them from all alike, the others in proportion to how much they change.

    Args:
        videos: uint8 `[n, 3, height, width]` each, on one device, at least 4 frames and `size` pixels on each side.
        generator: on the CPU.
        size: of the triplets, pixels of each side.
    """

    def __init__(self, videos: list[Tensor], generator: torch.Generator, *, size: int):
        for video in videos:
            if len(video) < 4 or min(video.shape[2:]) < size:
                raise ValueError(
                    f"a video has shape {list(video.shape)}: allowed are 4 frames and more, of {size} pixels"
                )
        self.videos, self.generator, self.size = videos, generator, size
        moves = torch.stack([_movement(video) for video in videos]).cpu()
        self.chances = 0.5 / len(videos) + 0.5 * moves / moves.sum().clamp_min(1e-6)

    def draw(self, count: int) -> Triplets:
        """`count` triplets; in two of three the middle frame is at 1/2, in the others at 1/3 or 2/3."""
        drawn = [self._one() for _ in range(count)]
        frames = torch.stack([each for each, _ in drawn])  # [B, 3, 3, H, W]
        t = torch.tensor([time for _, time in drawn]).to(frames.device, non_blocking=True)
        return Triplets(frames[:, 0], frames[:, 1], frames[:, 2], t)

    def _below(self, limit: int) -> int:
        return int(torch.randint(limit, (), generator=self.generator))

    def _chance(self, probability: float) -> bool:
        return bool(torch.rand((), generator=self.generator) < probability)

    def _one(self) -> tuple[Tensor, float]:
        """Three frames `[3, 3, H, W]` and the time of the one in the middle."""
        video = self.videos[int(torch.multinomial(self.chances, 1, generator=self.generator))]
        gap, between = (2, 1) if self._chance(2 / 3) else (3, 1 + self._below(2))
        start = self._below(len(video) - gap)
        frames = self._crop(torch.stack([video[start + after] for after in (0, between, gap)]))
        for axis in (-1, -2):
            if self._chance(0.5):
                frames = frames.flip(axis)
        if self._chance(0.5):
            frames = frames.transpose(-1, -2)
        if self._chance(0.5):
            order = torch.randperm(3, generator=self.generator).tolist()
            frames = torch.stack([frames[:, colour] for colour in order], dim=1)
        time = between / gap
        return (frames.flip(0), 1 - time) if self._chance(0.5) else (frames, time)

    def _crop(self, frames: Tensor) -> Tensor:
        height, width = frames.shape[2:]
        size = self.size
        if self._chance(0.3):
            most = min(height, width, int(self.size / SMALLEST))
            size = self.size + self._below(most - self.size + 1)
        top, left = self._below(height - size + 1), self._below(width - size + 1)
        crop = frames[:, :, top : top + size, left : left + size].float() / 255
        if size == self.size:
            return crop
        return F.interpolate(crop, (self.size, self.size), mode="bilinear", antialias=True, align_corners=False)


def _movement(video: Tensor) -> Tensor:
    """Mean difference of neighbouring frames, of some of them."""
    some = video[:: max(1, len(video) // 8)]
    after = video[1 :: max(1, len(video) // 8)][: len(some)]
    return (some[: len(after)].float() - after.float()).abs().mean()
