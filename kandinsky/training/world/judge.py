"""What a clip shows, measured without a network, and compared with what was asked for.

The background is midway between the darker and the lighter part of the border, which are its two tones if it flickers;
the object is what differs from it. A background flickers if hardly a tile of it is between the tones, and is plain if
most tiles are. Colour is the hue of the object's core, shape the ideal mask that its own is nearest to, position and
motion come from the path of its middle. One object is looked for: where there are two, or none, or a smear, values are
None. How sharp a clip is, is `metrics`' business.

Legend: F frames; lengths are fractions of the picture's shorter side, places (x, y) from its middle, as in `render`.
"""

import colorsys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.training.world.grammar import LANES, Scene
from kandinsky.training.world.render import BEAT, BRIGHTNESS, DISTANCES, FLICKER, HUES, LANE, RADII, TILE

BORDER = 4
CROP = 24
LEAST_CONTRAST = 0.12
LEAST_SATURATION = 0.25
LEAST_HUE = 0.08
"""Difference between two channels of a tile's mean, from which some of the object is in it."""
SHAPE_ERROR = 0.12
"""Mean square between a mask and its nearest ideal, from which it is none; two shapes differ by 0.18 to 0.42."""
STILL = 0.1
"""Way under which an object stays where it is; one that moves goes 0.4 and more."""
MOST_BETWEEN, LEAST_PLAIN = 0.04, 0.9
"""Share of tiles less than half way to a tone: at most, if the background flickers; at least, if it is plain."""
SLANTED = 0.6
"""Share of the longer way that the shorter one may have; what moves aslant has no direction of the grammar."""


@dataclass(frozen=True)
class Verdict:
    """What was measured; None where it cannot be told."""

    colour: str | None = None
    shape: str | None = None
    size: str | None = None
    position: str | None = None
    motion: str | None = None
    background: str | None = None
    texture: str | None = None


def agreement(scene: Scene, verdict: Verdict) -> dict[str, bool]:
    """For each attribute, whether it is what the scene says."""
    return {name: value == getattr(verdict, name) for name, value in asdict(scene).items()}


@dataclass(frozen=True)
class Parts:
    """A clip taken apart: `background` `[3]`, `contrast` to it `[F, height, width]`, and `most` of it, `[F]`."""

    background: Tensor
    contrast: Tensor
    most: Tensor


def take_apart(pixels: Tensor) -> Parts:
    """Background and what differs from it, of pixels `[F, 3, height, width]`."""
    background = _tones(_border(pixels)).mean(0)
    contrast = (pixels - background[:, None, None]).abs().amax(1)
    return Parts(background, contrast, most(contrast))


def most(values: Tensor) -> Tensor:
    """What half a percent of the pixels reach in each frame of values `[F, height, width]`, `[F]`."""
    return values.flatten(1).topk(max(1, values[0].numel() // 200), dim=1).values[:, -1]


def judge(frames: Tensor, *, new_textures: bool = False) -> Verdict:
    """Measure a clip, uint8 `[F, height, width, 3]`. A single frame has no motion, and any of the five positions.

    Args:
        new_textures: whether a background may be striped too; else stripes are a flicker.
    """
    raw = frames.movedim(-1, 1).float() / 255  # [F, 3, height, width]
    pixels = _smooth(raw)
    parts = take_apart(pixels)
    kind, texture = _background(parts.background), _texture(raw, new=new_textures)
    seen = parts.most > LEAST_CONTRAST
    if seen.sum() <= len(frames) / 2:
        return Verdict(background=kind, texture=texture)
    pixels, contrast, most = pixels[seen], parts.contrast[seen], parts.most[seen, None, None]
    masks = (contrast > 0.5 * most).float()
    boxes = torch.tensor([_bounds(mask) for mask in masks])  # [F, top bottom left right]
    path = _middles(boxes, frames.shape[1:3])
    motion = _motion(path) if len(frames) > 1 else None
    lengths = torch.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]) / min(frames.shape[1:3])
    return Verdict(
        colour=_colour(pixels.movedim(1, -1)[contrast > 0.85 * most].mean(0)),
        shape=_shape(masks, boxes),
        size=_nearest(lengths.median().item() / 2, {name: sum(ends) / 2 for name, ends in RADII.items()}),
        position=_position(path.mean(0), motion),
        motion=motion,
        background=kind,
        texture=texture,
    )


def object_path(frames: Tensor) -> Tensor:
    """Where the object is in each frame of a clip, uint8 `[F, height, width, 3]`: `[F, 2]`, to fractions of a pixel.

    It is the middle of what differs from the background, weighted by how much; where nothing does, it means nothing.
    """
    parts = take_apart(_smooth(frames.movedim(-1, 1).float() / 255))
    weight = (parts.contrast / parts.most[:, None, None].clamp(min=LEAST_CONTRAST) - 0.4).clamp(0, 0.4)
    height, width = frames.shape[1:3]
    across, down = (torch.arange(size) + 0.5 - size / 2 for size in (width, height))
    total = weight.sum((1, 2)).clamp(min=1e-6)
    middle = torch.stack(((weight * across).sum((1, 2)), (weight * down[:, None]).sum((1, 2))), dim=1)
    return middle / total[:, None] / min(height, width)


def _smooth(pixels: Tensor) -> Tensor:
    """Mean of 3 x 3 pixels `[F, 3, height, width]`: noise falls to a third, edges hardly move."""
    return F.avg_pool2d(F.pad(pixels.contiguous(), (1, 1, 1, 1), mode="replicate"), 3, stride=1)


def _texture(pixels: Tensor, *, new: bool) -> str | None:
    """Plain, flickering or, if `new`, striped, by the share of tiles between the two tones.

    Tiles with a hue are the object's, and left out.
    """
    beats = (torch.arange(len(pixels)) + BEAT - 1) // BEAT
    cores = F.avg_pool2d(pixels[..., TILE // 4 :, TILE // 4 :], TILE // 2, stride=TILE)  # the inner half of each tile
    means = torch.stack([cores[beats == beat].mean(0) for beat in beats.unique()])  # [beats, 3, rows, columns]
    bare = (means.amax(1) - means.amin(1)) < LEAST_HUE
    if not bare.any():
        return None
    brightness = means.mean(1)[bare]
    between = ((brightness - _tones(brightness).mean()).abs() < FLICKER / 2).float().mean()
    if between >= LEAST_PLAIN:
        return "plain"
    if between > MOST_BETWEEN:
        return None
    return "striped" if new and _is_striped(means.mean(1), bare) else "flickering"


def _is_striped(brightness: Tensor, bare: Tensor) -> bool:
    """Whether tiles `[beats, rows, columns]` have the tones of upright stripes that stay; `bare` ones are looked at."""
    above = (brightness > _tones(brightness[bare]).mean()) == (torch.arange(brightness.shape[-1]) % 2 == 0)
    share = above[bare].float().mean().item()
    return max(share, 1 - share) >= 1 - MOST_BETWEEN


def _tones(values: Tensor) -> Tensor:
    """The darker and the lighter part of values `[n, ...]`, `[2, ...]`."""
    return values.quantile(torch.tensor([0.2, 0.8]), dim=0)


def _border(pixels: Tensor) -> Tensor:
    """The outermost pixels of all frames, `[pixels, 3]`."""
    sides = (pixels[:, :, :BORDER], pixels[:, :, -BORDER:], pixels[..., :BORDER], pixels[..., -BORDER:])
    return torch.cat([side.movedim(1, -1).flatten(0, 2) for side in sides])


def _bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """First and end row, first and end column of a mask; thin specks are left out."""
    ends = []
    for axis in (1, 0):
        counts = mask.sum(axis)
        there = (counts > 0.08 * counts.max()).nonzero()[:, 0].tolist()
        ends += [there[0], there[-1] + 1]
    return ends[0], ends[1], ends[2], ends[3]


def _middles(boxes: Tensor, size: tuple[int, ...]) -> Tensor:
    """Middles of boxes, `[F, 2]`."""
    height, width = size
    across, down = boxes[:, 2:].float().mean(1) - width / 2, boxes[:, :2].float().mean(1) - height / 2
    return torch.stack((across, down), dim=1) / min(size)


def _nearest(value: float, ideals: Mapping[str, float]) -> str:
    return min(ideals, key=lambda name: abs(ideals[name] - value))


def _background(colour: Tensor) -> str | None:
    if (colour.max() - colour.min()) > 0.2:
        return None
    return _nearest(colour.mean().item(), {name: sum(ends) / 2 for name, ends in BRIGHTNESS.items()})


def _colour(core: Tensor) -> str | None:
    """Name of a mean colour's hue."""
    hue, saturation, _ = colorsys.rgb_to_hsv(*core.tolist())
    if saturation < LEAST_SATURATION:
        return None
    return min(HUES, key=lambda name: abs((hue - HUES[name] + 0.5) % 1 - 0.5))


def _shape(masks: Tensor, boxes: Tensor) -> str | None:
    """The shape whose ideal mask, stretched to the box, is nearest to the mean of the clip's masks."""
    mean = torch.stack([_crop(mask, box) for mask, box in zip(masks, boxes.tolist(), strict=True)]).mean(0)
    errors = {name: (ideal - mean).square().mean().item() for name, ideal in _ideals().items()}
    nearest = min(errors, key=lambda name: errors[name])
    return nearest if errors[nearest] < SHAPE_ERROR else None


def _crop(mask: Tensor, box: tuple[int, int, int, int]) -> Tensor:
    """A mask's box stretched to `[CROP, CROP]`."""
    top, bottom, left, right = box
    return F.interpolate(mask[None, None, top:bottom, left:right], (CROP, CROP), mode="bilinear", antialias=True)[0, 0]


@cache
def _ideals() -> dict[str, Tensor]:
    """Each shape's mask, cut to its box and stretched to the crop."""
    fine = torch.linspace(-1.1, 1.1, 221)
    masks = {name: (distance(fine[None], fine[:, None]) < 0).float() for name, distance in DISTANCES.items()}
    return {name: _crop(mask, _bounds(mask)) for name, mask in masks.items()}


def _motion(path: Tensor) -> str | None:
    """Direction from the first quarter of the path `[F, 2]` to the last."""
    quarter = max(1, len(path) // 4)
    across, down = (path[-quarter:].mean(0) - path[:quarter].mean(0)).tolist()
    if max(abs(across), abs(down)) < STILL:
        return "still"
    if min(abs(across), abs(down)) > SLANTED * max(abs(across), abs(down)):
        return None
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


def _position(middle: Tensor, motion: str | None) -> str:
    """Where an object is: of the places that its motion allows, the nearest across the motion."""
    places = {"top": (0, -LANE), "bottom": (0, LANE), "left": (-LANE, 0), "right": (LANE, 0), "middle": (0, 0)}
    across, down = middle.tolist()

    def distance(name: str) -> float:
        x, y = places[name]
        sideways = 0 if motion in ("left", "right") else (across - x) ** 2
        upright = 0 if motion in ("up", "down") else (down - y) ** 2
        return sideways + upright

    return min(LANES[motion or "still"], key=distance)
