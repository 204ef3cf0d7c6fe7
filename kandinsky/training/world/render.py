"""Clips of scenes, drawn by signed distances on any device.

What a caption leaves open is drawn at random: exact colours, the object's size within its kind, where it starts and how
far it goes. Random numbers are drawn on the CPU, so that a seed gives the same clips on every device up to rounding.

Legend: B clips, F frames; lengths are fractions of the picture's shorter side, places are (x, y) from its middle, x to
the right, y downwards.
"""

import colorsys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from kandinsky.training.world.grammar import Scene

HUES = {"red": 0.0, "yellow": 55 / 360, "green": 125 / 360, "cyan": 180 / 360, "blue": 228 / 360, "purple": 290 / 360}
HUE_JITTER = 6 / 360
RADII = {"small": (0.095, 0.12), "large": (0.18, 0.21)}
BRIGHTNESS = {"dark": (0.08, 0.18), "gray": (0.45, 0.55), "light": (0.84, 0.92)}
FLICKER = 0.07
"""By how much tiles of a flickering background are brighter or darker than it."""
TILE, BEAT = 8, 4
"""Pixels of a tile's side, and frames after which it is drawn anew (the first frame is for itself): one value of the
VAE's latents."""
LANE = 0.24
"""From the middle to a lane at the top, bottom, left or right."""
LANE_JITTER = 0.025
TRAVEL = (0.4, 0.48)
MARGIN = 0.02
_DIRECTIONS = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "still": (0, 0)}
_OFFSETS = {"top": (0, -1), "bottom": (0, 1), "left": (-1, 0), "right": (1, 0), "middle": (0, 0)}


@dataclass(frozen=True)
class Paths:
    """What is drawn: `start`, `end` `[B, 2]` (x, y), `radius`, `flicker` `[B]`, `colour`, `background` `[B, 3]` from 0
    to 1."""

    start: Tensor
    end: Tensor
    radius: Tensor
    colour: Tensor
    background: Tensor
    flicker: Tensor


def render(
    scenes: Sequence[Scene],
    num_frames: int,
    *,
    size: tuple[int, int] = (128, 128),
    generator: torch.Generator,
    device: str | torch.device,
) -> Tensor:
    """Draw a clip of each scene.

    Args:
        num_frames: a moving object takes all of them for its way, however many; in a single one it is halfway.
        size: height and width in pixels.
        generator: on the CPU.

    Returns:
        uint8 `[B, F, height, width, 3]` on `device`.

    Raises:
        ValueError: there is no scene or no frame.
    """
    if not scenes or num_frames < 1:
        raise ValueError(f"scenes={len(scenes)}, num_frames={num_frames!r}: allowed is 1 or more of each")
    paths = draw_paths(scenes, generator)
    time = torch.linspace(0, 1, num_frames)[:, None] if num_frames > 1 else torch.full((1, 1), 0.5)
    centres = paths.start[:, None] + time * (paths.end - paths.start)[:, None]  # [B, F, 2]
    cover = coverage(centres.to(device), paths.radius.to(device), [scene.shape for scene in scenes], size)[..., None]
    colour, background = (x.to(device)[:, None, None, None] for x in (paths.colour, paths.background))
    tiles = draw_tiles(len(scenes), num_frames, size, generator)  # [B, F, height, width]
    striped = torch.tensor([scene.texture == "striped" for scene in scenes])[:, None, None, None]
    tiles = torch.where(striped, stripes(tiles), tiles).to(device)
    background = background + (paths.flicker.to(device)[:, None, None, None] * tiles)[..., None]
    return background.lerp(colour, cover).mul_(255).round_().to(torch.uint8)


def draw_tiles(clips: int, num_frames: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """-1 or 1 for each tile and beat, as pixels `[clips, num_frames, height, width]`."""
    height, width = size
    shape = (clips, 1 + -(-(num_frames - 1) // BEAT), -(-height // TILE), -(-width // TILE))
    tiles = torch.randint(0, 2, shape, generator=generator).mul_(2).sub_(1).float()
    beats = (torch.arange(num_frames) + BEAT - 1) // BEAT
    rows, columns = torch.arange(height) // TILE, torch.arange(width) // TILE
    return tiles[:, beats][:, :, rows][..., columns]


def stripes(tiles: Tensor) -> Tensor:
    """Upright stripes as wide as a tile that stay as they are, shaped as `tiles`; the first pixel's tone is theirs."""
    turns = 1 - 2 * (torch.arange(tiles.shape[-1]) // TILE % 2)
    return (tiles[:, :1, :1, :1] * turns).expand(tiles.shape)


def draw_paths(scenes: Sequence[Scene], generator: torch.Generator) -> Paths:
    """The random part of each scene."""
    drawn = torch.rand(len(scenes), 8, generator=generator)
    rows = [_path(scene, values) for scene, values in zip(scenes, drawn.tolist(), strict=True)]
    return Paths(*(torch.tensor(column) for column in zip(*rows, strict=True)))


def _path(scene: Scene, drawn: list[float]) -> tuple:
    """One row of `Paths`."""
    radius = _between(RADII[scene.size], drawn[0])
    free = 1 - 2 * (radius + MARGIN)  # length of the way that its middle may take
    travel = _between(TRAVEL, drawn[1])
    first = drawn[2] * (free - travel) - free / 2
    start, end = [], []
    for axis in range(2):
        direction = _DIRECTIONS[scene.motion][axis]
        lane = LANE * _OFFSETS[scene.position][axis] + LANE_JITTER * (2 * drawn[3 + axis] - 1)
        ends = (first, first + travel) if direction else (lane, lane)
        start.append(ends[0] if direction >= 0 else ends[1])
        end.append(ends[1] if direction >= 0 else ends[0])
    hue = HUES[scene.colour] + HUE_JITTER * (2 * drawn[5] - 1)
    colour = colorsys.hsv_to_rgb(hue % 1, 0.85, 0.82 + 0.13 * drawn[6])
    background = [_between(BRIGHTNESS[scene.background], drawn[7])] * 3
    return start, end, radius, colour, background, FLICKER * (scene.texture != "plain")


def _between(ends: tuple[float, float], share: float) -> float:
    return ends[0] + share * (ends[1] - ends[0])


def coverage(centres: Tensor, radius: Tensor, shapes: Sequence[str], size: tuple[int, int]) -> Tensor:
    """How much of each pixel an object covers, `[B, F, height, width]`.

    Args:
        centres: `[B, F, 2]`.
        radius: `[B]`.
        shapes: one for each clip.
    """
    height, width = size
    side = min(size)
    rows = (torch.arange(height, device=centres.device) + 0.5 - height / 2) / side
    columns = (torch.arange(width, device=centres.device) + 0.5 - width / 2) / side
    cover = centres.new_empty(*centres.shape[:2], height, width)
    for shape, distance in DISTANCES.items():
        # Chosen by number on the host: a mask on the device would make the host wait for it.
        chosen = torch.tensor([index for index, each in enumerate(shapes) if each == shape], dtype=torch.long)
        chosen = chosen.to(centres.device)
        scale = radius[chosen, None, None, None]
        x = (columns - centres[chosen, :, 0, None, None]) / scale  # [chosen, F, 1, width]
        y = (rows[:, None] - centres[chosen, :, 1, None, None]) / scale  # [chosen, F, height, 1]
        cover[chosen] = (0.5 - distance(x, y) * (scale * side)).clamp(0, 1)
    return cover


def circle(x: Tensor, y: Tensor) -> Tensor:
    return (x.square() + y.square()).sqrt() - 1


def square(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.9


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """Point up, three sides alike but for a little: base at 0.75, tip at -1."""
    return torch.maximum(0.866 * x.abs() - 0.5 * y - 0.5, y - 0.75)


def cross(x: Tensor, y: Tensor) -> Tensor:
    upright = torch.maximum(x.abs() - 0.34, y.abs() - 1)
    lying = torch.maximum(x.abs() - 1, y.abs() - 0.34)
    return torch.minimum(upright, lying)


DISTANCES: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = MappingProxyType(
    {"circle": circle, "square": square, "triangle": triangle, "cross": cross}
)
"""Signed distance to a shape of radius 1, negative inside; a lower bound outside corners."""
