"""Other words for a scene's caption: synonyms, other order, parts left out.

A text embedder that has read only one sentence knows only one sentence. What is left out may be anything: the wording
fits its scene, but does not tell it. `grammar.caption` is the wording that tells everything.
"""

import random
from collections.abc import Mapping
from types import MappingProxyType

from kandinsky.training.world.grammar import PLACES, Scene

SYNONYMS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "small": ("small", "little", "tiny"),
        "large": ("large", "big"),
        "purple": ("purple", "violet"),
        "circle": ("circle", "disc", "ball"),
        "square": ("square", "box"),
        "cross": ("cross", "plus sign"),
        "dark": ("dark", "black"),
        "gray": ("gray", "grey"),
        "light": ("light", "white", "bright"),
        "flickering": ("flickering", "twinkling"),
    }
)
MOVES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "right": ("moves right", "moves to the right", "goes right", "moving right"),
        "left": ("moves left", "moves to the left", "goes left", "moving left"),
        "up": ("moves up", "goes up", "moving up", "moves upwards", "rises"),
        "down": ("moves down", "goes down", "moving down", "moves downwards", "falls"),
        "still": ("stays still", "stands still", "does not move", "rests"),
    }
)
LEFT_OUT = 0.2
"""How often a part is missing."""


def reword(scene: Scene, choice: random.Random) -> str:
    """One of very many wordings of a scene."""
    place = PLACES[scene.position]
    if scene.position == "middle" and choice.random() < 0.5:
        place = "in the center"
    texture = "" if scene.texture == "plain" else f"{_word(scene.texture, choice)} "
    ground = f"{texture}{_word(scene.background, choice)} background"
    parts = [place, choice.choice(MOVES[scene.motion]), choice.choice((f"on a {ground}", f"against a {ground}"))]
    if choice.random() < 0.3:
        choice.shuffle(parts)
    parts = [_thing(scene, choice), *(part for part in parts if choice.random() > LEFT_OUT)]
    if choice.random() < 0.1:
        parts.insert(0, f"{parts.pop()},")  # the last part comes first
    text = " ".join(parts).strip(",")
    return text + choice.choice(("", "", "."))


def _thing(scene: Scene, choice: random.Random) -> str:
    """The object with its size and colour."""
    words = [choice.choice(("a", "a", "a", "the", ""))]
    words += [_word(value, choice) for value in (scene.size, scene.colour) if choice.random() > LEFT_OUT]
    words.append(_word(scene.shape, choice) if choice.random() > LEFT_OUT else "shape")
    return " ".join(word for word in words if word)


def _word(value: str, choice: random.Random) -> str:
    """A value or, in two of five cases, any of its synonyms."""
    return choice.choice(SYNONYMS.get(value, (value,))) if choice.random() < 0.4 else value
