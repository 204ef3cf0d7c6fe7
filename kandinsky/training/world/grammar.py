"""Scenes of the synthetic world and their captions.

A scene is one object on a background: "a small red circle at the top moves right on a dark background". A moving
object keeps its lane: what moves sideways is at the top, in the middle or at the bottom, what moves up or down is on
the left, in the middle or on the right. Backgrounds have no hue, so that hue is the object's. A background is plain,
which a caption does not mention, or it flickers: tiles of it turn brighter or darker at random, independently of each
other. That is the part of a scene that is many details at once, none of them in the caption. Nothing here draws, and
other wordings of a caption are in `wording`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import cache
from hashlib import sha256
from itertools import product
from types import MappingProxyType

ATTRIBUTES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "colour": ("red", "yellow", "green", "cyan", "blue", "purple"),
        "shape": ("circle", "square", "triangle", "cross"),
        "size": ("small", "large"),
        "position": ("top", "bottom", "left", "right", "middle"),
        "motion": ("right", "left", "up", "down", "still"),
        "background": ("dark", "gray", "light"),
        "texture": ("plain", "flickering"),
    }
)
"""Allowed values, in the order of a scene's fields."""
NEW: Mapping[str, tuple[str, ...]] = MappingProxyType({"texture": ("striped",)})
"""Values that scenes may have too, but no scene of `all_scenes` has: a model of this world has never seen them."""
LANES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "right": ("top", "middle", "bottom"),
        "left": ("top", "middle", "bottom"),
        "up": ("left", "middle", "right"),
        "down": ("left", "middle", "right"),
        "still": ATTRIBUTES["position"],
    }
)
"""Positions that go with a motion."""
PLACES: Mapping[str, str] = MappingProxyType(
    {
        "top": "at the top",
        "bottom": "at the bottom",
        "left": "on the left",
        "right": "on the right",
        "middle": "in the middle",
    }
)
"""A caption's words for a position."""


@dataclass(frozen=True)
class Scene:
    """One value of each of `ATTRIBUTES`, or of `NEW`.

    Raises:
        ValueError: a value is not one of them, or the position is not a lane of the motion.
    """

    colour: str
    shape: str
    size: str
    position: str
    motion: str
    background: str
    texture: str = "plain"

    def __post_init__(self) -> None:
        for name, known in ATTRIBUTES.items():
            allowed = (*known, *NEW.get(name, ()))
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name}={getattr(self, name)!r}: allowed are {', '.join(allowed)}")
        if self.position not in LANES[self.motion]:
            allowed = ", ".join(LANES[self.motion])
            raise ValueError(f"position={self.position!r} with motion={self.motion!r}: allowed are {allowed}")


def caption(scene: Scene) -> str:
    """What a scene shows, in words."""
    place, move = PLACES[scene.position], "stays still" if scene.motion == "still" else f"moves {scene.motion}"
    texture = "" if scene.texture == "plain" else f"{scene.texture} "
    return f"a {scene.size} {scene.colour} {scene.shape} {place} {move} on a {texture}{scene.background} background"


def parse(text: str) -> Scene:
    """The scene of a caption; it may have a value of `NEW`.

    Raises:
        ValueError: it is not a caption of this grammar.
    """
    scene = _scene_of().get(text) or _new_scene_of().get(text)
    if scene is None:
        words = "; ".join(f"{name}: {', '.join(allowed)}" for name, allowed in ATTRIBUTES.items())
        example = caption(next(iter(_scene_of().values())))
        raise ValueError(f"caption={text!r}: allowed are captions like {example!r} with {words}")
    return scene


def all_scenes() -> list[Scene]:
    """Every scene, in a fixed order."""
    return list(_scene_of().values())


def new_scenes(name: str, value: str, *, seed: int = 0) -> list[Scene]:
    """Every scene with a value of `NEW`, in an order that the seed gives.

    Raises:
        ValueError: the attribute has no such new value.
    """
    if value not in NEW.get(name, ()):
        allowed = "; ".join(f"{each}: {', '.join(values)}" for each, values in NEW.items())
        raise ValueError(f"new value {name}={value!r}: allowed are {allowed}")
    others = [scene for scene in all_scenes() if getattr(scene, name) == ATTRIBUTES[name][0]]
    return _shuffled([replace(scene, **{name: value}) for scene in others], seed)


def split(held_out: float = 0.1, seed: int = 0) -> tuple[list[Scene], list[Scene]]:
    """Scenes to train with, and scenes that training never sees; every value of every attribute is in both.

    Raises:
        ValueError: `held_out` is so small or so large that a value is missing on one side.
    """
    train, held = _split(held_out, seed)
    return list(train), list(held)


@cache
def _split(held_out: float, seed: int) -> tuple[tuple[Scene, ...], tuple[Scene, ...]]:
    scenes = tuple(_shuffled(all_scenes(), seed))
    count = round(held_out * len(scenes))
    parts = scenes[count:], scenes[:count]
    needed = sum(len(allowed) for allowed in ATTRIBUTES.values())
    if any(len(set(_values(part))) < needed for part in parts):
        raise ValueError(f"held_out={held_out!r}: allowed is a share that leaves every word on both sides, e.g. 0.1")
    return parts


def _shuffled(scenes: list[Scene], seed: int) -> list[Scene]:
    return sorted(scenes, key=lambda scene: sha256(f"{seed} {caption(scene)}".encode()).digest())


def _values(scenes: Sequence[Scene]) -> list[tuple[str, str]]:
    return [pair for scene in scenes for pair in zip(ATTRIBUTES, astuple(scene), strict=True)]


@cache
def _scene_of() -> Mapping[str, Scene]:
    """Every scene under its caption."""
    combinations = (dict(zip(ATTRIBUTES, values, strict=True)) for values in product(*ATTRIBUTES.values()))
    scenes = (Scene(**values) for values in combinations if values["position"] in LANES[values["motion"]])
    return MappingProxyType({caption(scene): scene for scene in scenes})


@cache
def _new_scene_of() -> Mapping[str, Scene]:
    """Every scene with a value of `NEW` under its caption."""
    scenes = (scene for name, values in NEW.items() for value in values for scene in new_scenes(name, value))
    return MappingProxyType({caption(scene): scene for scene in scenes})
