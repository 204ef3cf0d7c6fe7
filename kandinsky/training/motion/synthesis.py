"""Motion that is made on the spot: textured layers that move, turn, grow and bend over one another.

Each triplet has its exact frame in between, at any time. Layers have edges of different softness and hide one another;
light changes, what moves fast may be blurred along its way, and half of all triplets move slowly.
Pictures for the layers are frames of the training videos and noise, so that nothing else is needed.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LAYERS = 5
NOISES = 48
"""Pictures of noise among the textures."""


@dataclass(frozen=True)
class Triplets:
    """`first`, `middle`, `second` `[B, 3, H, W]` in 0..1, and the time `t` `[B]` of the middle one."""

    first: Tensor
    middle: Tensor
    second: Tensor
    t: Tensor


def noise_textures(size: int, generator: torch.Generator) -> Tensor:
    """Noise of many scales, some of it in steps, `[NOISES, 3, size, size]` in 0..1."""
    device = generator.device
    made = []
    for index in range(NOISES):
        picture = torch.zeros(3, size, size, device=device)
        strength, fall = 1.0, 0.45 + 0.45 * index / NOISES
        for octave in range(2, 9):
            channels = 1 if index % 2 else 3
            noise = torch.randn(1, channels, 2**octave, 2**octave, generator=generator, device=device)
            picture = picture + strength * F.interpolate(noise, (size, size), mode="bicubic")[0]
            strength *= fall
        picture = torch.rand(3, 1, 1, generator=generator, device=device) + 0.2 * picture / picture.std()
        made.append((picture * 6).round() / 6 if index % 3 == 0 else picture)
    return torch.stack(made).clamp(0, 1)


class Motion:
    """Draws triplets.

    Args:
        textures: `[N, 3, size, size]` in 0..1, on the device where triplets are made.
        generator: on the same device.
        size: of the triplets, pixels of each side.
    """

    def __init__(self, textures: Tensor, generator: torch.Generator, *, size: int):
        self.textures, self.generator, self.size = textures, generator, size
        line = torch.linspace(-1, 1, size, device=textures.device)
        self.grid = torch.stack((line.expand(size, size), line[:, None].expand(size, size)), dim=-1)[None]

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.textures.device)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator, device=self.textures.device)

    def draw(self, count: int) -> Triplets:
        """`count` triplets; in half of them the middle frame is at 1/2, in the others anywhere from 0.1 to 0.9."""
        anywhere = 0.1 + 0.8 * self.uniform(count)
        t = torch.where(self.uniform(count) < 0.5, torch.full_like(anywhere, 0.5), anywhere)
        times = torch.stack((torch.zeros_like(t), t, torch.ones_like(t)))  # [3, B]
        speed = self.uniform(count, 1) ** 3 * 0.5  # of half the picture: half of the triplets move by less than 6 %
        frames = self._layer(times, speed, None)
        for _ in range(1, LAYERS):
            frames = self._layer(times, speed, frames)
        first, middle, second = frames.clamp(0, 1)
        return Triplets(first, middle, second, t)

    def _layer(self, times: Tensor, speed: Tensor, below: Tensor | None) -> Tensor:
        """`below` `[3, B, 3, H, W]` with one more layer on it."""
        count, calm = times.shape[1], speed / 0.5
        texture = self._texture(count)
        velocity, bend = self.normal(count, 2) * speed, self.normal(count, 2) * speed * 0.15
        turn, grow = self.normal(count, 1) * 0.15 * calm, self.normal(count, 1) * 0.08 * calm
        angle, zoom = self.uniform(count, 1) * 6.28, self.uniform(count, 1) * 0.5 + 0.25
        centre = (self.uniform(count, 1, 1, 2) - 0.5) * 0.6
        bulge = self._smooth(count, 2, 5).permute(0, 2, 3, 1) * 0.05 * (self.uniform(count, 1) * calm)[..., None, None]
        light = self.normal(count, 1, 1, 1) * 0.02
        shape = self._smooth(count, 1, 6) + 0.3 * self._smooth(count, 1, 24)
        threshold, edge = self.uniform(count, 1, 1, 1) * 1.2 + 0.2, self.uniform(count, 1, 1, 1) * 30 + 6
        frames = []
        for index, time in enumerate(times):
            s = time[:, None]
            place = self.grid - (velocity * s + bend * s * (1 - s))[:, None, None] + bulge * s[..., None, None]
            cos, sin = torch.cos(angle + turn * s)[..., None], torch.sin(angle + turn * s)[..., None]
            x, y = place[..., 0], place[..., 1]
            turned = (
                torch.stack((cos * x - sin * y, sin * x + cos * y), dim=-1) * (zoom * (1 + grow * s))[..., None, None]
            )
            colours = F.grid_sample(texture, turned + centre, padding_mode="reflection", align_corners=True)
            colours = colours * (1 + light * s[..., None, None])
            if below is None:
                frames.append(colours)
                continue
            cover = F.grid_sample(shape, place, padding_mode="border", align_corners=True)
            alpha = torch.sigmoid((cover - threshold) * edge)
            frames.append(below[index] * (1 - alpha) + colours * alpha)
        return torch.stack(frames)

    def _texture(self, count: int) -> Tensor:
        index = torch.randint(len(self.textures), (count,), generator=self.generator, device=self.textures.device)
        contrast, shift = 0.6 + 0.8 * self.uniform(count, 3, 1, 1), 0.2 * (self.uniform(count, 3, 1, 1) - 0.5)
        return (self.textures[index] * contrast + shift).clamp(0, 1)

    def _smooth(self, count: int, channels: int, points: int) -> Tensor:
        noise = self.normal(count, channels, points, points)
        return F.interpolate(noise, (self.size, self.size), mode="bicubic", align_corners=True)
