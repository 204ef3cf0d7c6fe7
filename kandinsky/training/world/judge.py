"""What a clip shows, measured without a network, and compared with what was asked for.

The background is the median of the border; the object is what differs from it. Colour is the hue of the object's core, shape the
ideal mask that its own is nearest to, position and motion come from the path of its middle.
"""

import colorsys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from kandinsky.training.world.grammar import ATTRIBUTES, LANES, Scene
from kandinsky.training.world.render import HUES, LANE, RADII, distances_to

BORDER = 4
CROP = 24
LEAST_CONTRAST = 0.12
STILL = 0.1
"""Way, as a fraction of the picture, under which an object stays where it is; one that moves goes 0.3 and more."""


@dataclass(frozen=True)
class Verdict:
    """What was measured; None where it cannot be told."""

    size: str | None = None
    colour: str | None = None
    shape: str | None = None
    position: str | None = None
    motion: str | None = None
    background: str | None = None


def agreement(scene: Scene, verdict: Verdict) -> dict[str, bool]:
    """For each attribute, whether it is what the scene says."""
    return {name: value == getattr(verdict, name) for name, value in asdict(scene).items()}


def judge(frames: Tensor) -> Verdict:
    """Measure a clip, uint8 `[F, height, width, 3]`."""
    pixels = frames.float() / 255
    background = border(pixels).flatten(0, 1).median(dim=0).values
    contrast = (pixels - background).abs().amax(-1)  # [F, height, width]
    most = contrast.flatten(1).topk(max(1, contrast[0].numel() // 200), dim=1).values[:, -1]
    kind = _background(background)
    if most.median() < LEAST_CONTRAST:
        return Verdict(background=kind)
    masks = contrast > 0.5 * most.clamp(min=LEAST_CONTRAST)[:, None, None]
    seen = [index for index in range(len(masks)) if masks[index].any()]
    boxes = [bounds(masks[index]) for index in seen]
    path = torch.stack([_middle(masks[index]) for index in seen])
    motion = _motion(path) if len(path) > 1 else None
    radius = torch.tensor([max(box[1] - box[0], box[3] - box[2]) for box in boxes]).float().median().item()
    return Verdict(
        size=_nearest(radius / 2 / frames.shape[1], {name: sum(ends) / 2 for name, ends in RADII.items()}),
        colour=_colour(pixels, contrast, most),
        shape=_shape([masks[index] for index in seen], boxes),
        position=_position(path.mean(0), motion),
        motion=motion,
        background=kind,
    )


def border(pixels: Tensor) -> Tensor:
    """The outermost pixels of each frame, `[F, pixels, 3]`."""
    parts = (pixels[:, :BORDER], pixels[:, -BORDER:], pixels[:, :, :BORDER], pixels[:, :, -BORDER:])
    return torch.cat([part.flatten(1, 2) for part in parts], dim=1)


def bounds(mask: Tensor) -> tuple[int, int, int, int]:
    """First and end row, first and end column of a mask; thin specks are left out."""
    ends = []
    for axis in (1, 0):
        counts = mask.sum(axis)
        there = (counts > 0.08 * counts.max()).nonzero()[:, 0]
        ends += [int(there[0]), int(there[-1]) + 1]
    return ends[0], ends[1], ends[2], ends[3]


def _middle(mask: Tensor) -> Tensor:
    """Middle of the box around a mask, (x, y) as fractions of the height."""
    top, bottom, left, right = bounds(mask)
    return torch.tensor([(left + right) / 2, (top + bottom) / 2]) / mask.shape[0]


def _nearest(value: float, ideals: Mapping[str, float]) -> str:
    return min(ideals, key=lambda name: abs(ideals[name] - value))


def _background(colour: Tensor) -> str | None:
    if (colour.max() - colour.min()) > 0.2:
        return None
    return _nearest(colour.mean().item(), {"dark": 0.12, "gray": 0.5, "light": 0.91})


def _colour(pixels: Tensor, contrast: Tensor, most: Tensor) -> str | None:
    """Name of the hue of the object's core."""
    core = contrast > 0.85 * most[:, None, None]
    red, green, blue = pixels[core].mean(0).tolist()
    hue, saturation, _ = colorsys.rgb_to_hsv(red, green, blue)
    if saturation < 0.25:
        return None
    return min(HUES, key=lambda name: abs((hue - HUES[name] + 0.5) % 1 - 0.5))


def _shape(masks: list[Tensor], boxes: list[tuple[int, int, int, int]]) -> str:
    """The shape whose ideal mask, stretched to the box, is nearest to the mean of the clip's masks."""
    crops = []
    for mask, (top, bottom, left, right) in zip(masks, boxes, strict=True):
        crop = mask[top:bottom, left:right].float()[None, None]
        crops.append(F.interpolate(crop, (CROP, CROP), mode="bilinear", antialias=True)[0, 0])
    mean = torch.stack(crops).mean(0)
    errors = {name: (ideal - mean).square().mean().item() for name, ideal in _ideals().items()}
    return min(errors, key=lambda name: errors[name])


@cache
def _ideals() -> dict[str, Tensor]:
    """Each shape's mask, cut to its box and stretched to the crop."""
    fine = torch.linspace(-1.1, 1.1, 221)
    ideals = {}
    for name, distance in zip(ATTRIBUTES["shape"], distances_to(fine[None], fine[:, None]), strict=True):
        mask = distance < 0
        top, bottom, left, right = bounds(mask)
        crop = mask[top:bottom, left:right].float()[None, None]
        ideals[name] = F.interpolate(crop, (CROP, CROP), mode="bilinear", antialias=True)[0, 0]
    return ideals


def _motion(path: Tensor) -> str:
    """Direction from the first quarter of the path `[F, 2]` to the last."""
    quarter = max(1, len(path) // 4)
    across, down = (path[-quarter:].mean(0) - path[:quarter].mean(0)).tolist()
    if max(abs(across), abs(down)) < STILL:
        return "still"
    if abs(across) > abs(down):
        return "right" if across > 0 else "left"
    return "down" if down > 0 else "up"


def _position(middle: Tensor, motion: str | None) -> str:
    """Where an object is: of the places that its motion allows, the nearest."""
    across, down = (middle - 0.5).tolist()
    places = {"top": (0, -LANE), "bottom": (0, LANE), "left": (-LANE, 0), "right": (LANE, 0), "middle": (0, 0)}
    lanes = LANES[motion or "still"]

    def distance(name: str) -> float:
        x, y = places[name]
        sideways, upright = (across - x) ** 2, (down - y) ** 2
        if motion in ("left", "right"):
            return upright
        return sideways if motion in ("up", "down") else sideways + upright

    return min(lanes, key=distance)
