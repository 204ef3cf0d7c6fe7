"""Scenes and their captions."""

import random
from dataclasses import replace

import pytest

from kandinsky.training.world.grammar import ATTRIBUTES, LANES, Scene, all_scenes, caption, new_scenes, parse, split


def test_captions_say_everything():
    scenes = all_scenes()
    captions = {caption(scene): scene for scene in scenes}
    assert len(captions) == len(scenes) == 4896
    assert parse("a small red circle at the top moves right on a dark background") == Scene(
        size="small", colour="red", shape="circle", position="top", motion="right", background="dark"
    )
    assert all(parse(text) == scene for text, scene in random.Random(1).sample(list(captions.items()), 5))


def test_a_plain_background_is_not_mentioned():
    scene = parse("a large blue cross in the middle stays still on a flickering gray background")
    assert scene.texture == "flickering"
    plain = caption(replace(scene, texture="plain"))
    assert plain == "a large blue cross in the middle stays still on a gray background"


def test_new_values_are_understood_and_in_no_old_scene():
    scene = new_scenes("texture", "striped")[0]
    assert parse(caption(scene)) == scene
    assert scene not in all_scenes()
    with pytest.raises(ValueError, match=r"texture='dotted': allowed are texture: striped"):
        new_scenes("texture", "dotted")


def test_what_is_not_in_the_grammar_is_refused():
    with pytest.raises(ValueError, match="a purple dog"):
        parse("a purple dog")
    values = {"size": "small", "colour": "red", "shape": "circle", "background": "dark", "motion": "up"}
    with pytest.raises(ValueError, match="position='top' with motion='up': allowed are left, middle, right"):
        Scene(**values, position="top")
    with pytest.raises(ValueError, match="colour='pink': allowed are red, yellow"):
        Scene(**{**values, "colour": "pink"}, position="left")


def test_every_motion_keeps_to_its_lanes():
    found = {(scene.motion, scene.position) for scene in all_scenes()}
    assert found == {(motion, position) for motion, positions in LANES.items() for position in positions}


def test_held_out_scenes_are_not_trained_with():
    train, held_out = split()
    assert not set(train) & set(held_out)
    assert len(held_out) == 490
    assert len(train) + len(held_out) == 4896
    for part in (train, held_out):
        for name, values in ATTRIBUTES.items():
            assert {getattr(scene, name) for scene in part} == set(values)


def test_the_split_is_the_seeds():
    assert split() == split()
    assert split(seed=1)[1] != split()[1]
    with pytest.raises(ValueError, match=r"held_out=0\.0: allowed is a share that leaves every word on both sides"):
        split(held_out=0.0)
