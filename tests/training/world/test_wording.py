"""Other wordings of a caption."""

import random
from dataclasses import replace

from kandinsky.training.world.grammar import parse
from kandinsky.training.world.wording import reword

SCENE = parse("a small red circle at the top moves right on a dark background")


def words(text):
    return set(text.replace(",", "").replace(".", "").split())


def wordings(scene, count=200):
    choice = random.Random(0)
    return [reword(scene, choice) for _ in range(count)]


def test_other_wordings_fit_their_scene():
    texts = set(wordings(SCENE))
    assert len(texts) > 100
    others = {"large", "big", "green", "blue", "square", "box", "bottom", "left", "light", "white", "gray"}
    assert not any(others & words(text) for text in texts)


def test_parts_are_left_out_now_and_then():
    texts = wordings(SCENE)
    shares = {name: sum(bool(words(text) & known) for text in texts) / len(texts) for name, known in PARTS.items()}
    assert all(0.6 < share < 0.95 for share in shares.values()), shares


PARTS = {
    "size": {"small", "little", "tiny"},
    "colour": {"red"},
    "shape": {"circle", "disc", "ball"},
    "position": {"top"},
    "motion": {"right"},
    "background": {"dark", "black"},
}


def test_a_texture_is_told_in_other_words():
    texts = wordings(replace(SCENE, texture="flickering"))
    assert {"flickering", "twinkling"} <= {word for text in texts for word in words(text)}
    assert not any({"flickering", "twinkling"} & words(text) for text in wordings(SCENE))


def test_choice_gives_the_wording():
    assert wordings(SCENE) == wordings(SCENE)
