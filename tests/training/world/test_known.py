"""The judge of what is known: what it gives and asks for, and that it tells good clips from bad. No model runs."""

import pytest
import torch

from kandinsky.training.world.grammar import parse
from kandinsky.training.world.known import CASES, PLAIN, measure, table, trials
from kandinsky.training.world.render import render

TEXTS = (
    "a large red circle in the middle moves right on a dark background",
    "a small yellow cross at the top moves left on a gray background",
)
SCENES = [parse(text) for text in TEXTS]


@pytest.fixture(scope="module")
def clips():
    return list(render(SCENES, 17, generator=torch.Generator().manual_seed(0), device="cpu"))


@pytest.mark.parametrize("case", CASES)
def test_trials(case, clips):
    made = trials(case, SCENES, clips, clips)
    assert len(made) == 2
    assert all(trial.shown == scene for trial, scene in zip(made, SCENES, strict=True))
    assert (made[0].given is None) == (case in PLAIN)
    assert made[0].made == (case != "drawn")
    assert (made[0].asked == made[0].shown) == (case != "turned" and not case.startswith("video"))


def test_a_drawn_clip_is_as_asked_and_another_is_not(clips):
    trial = trials("image", SCENES, clips, clips)[0]
    good = measure(trial, "image", clips[0], {"first": 90.0})
    assert (good["kept"], good["motion"], good["smooth"]) == (1, 1, 1)
    assert good["first"] > 0  # the picture itself
    assert good["tone"] < 1
    bad = measure(trial, "image", clips[1], {"first": 90.0})
    assert (bad["kept"], bad["motion"]) == (0, 0)
    assert bad["first"] < -60
    assert bad["tone"] > 30


def test_a_jump_is_seen(clips):
    jump = torch.cat((clips[0][:4], clips[0][8:], clips[0][-4:]))
    assert measure(trials("image", SCENES, clips, clips)[0], "image", jump, {})["smooth"] == 0


def test_how_much_of_a_video_is_new(clips):
    trial = trials("video 0.5", SCENES, clips, clips)[0]
    old, new = measure(trial, "video 0.5", clips[0], {}), measure(trial, "video 0.5", clips[1], {})
    assert (old["old looks"], old["new looks"], old["off the old way"]) == (1, 0, 0)
    assert (new["old looks"], new["new looks"], new["new motion"]) == (0, 1, 1)


def test_table():
    text = table({"image": {"hard": {"kept": 0.5, "first": -0.25}}})
    assert "| hard | 50.0% | -0.25 |" in text
