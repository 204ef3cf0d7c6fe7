"""A judge that is no network sees what was drawn, and nothing where nothing was."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from world_helpers import CPU, blurred

from kandinsky.training.world.grammar import ATTRIBUTES, parse
from kandinsky.training.world.judge import agreement, judge, most
from kandinsky.training.world.render import render


@pytest.fixture(scope="module")
def verdicts(clips):
    return [judge(clip) for clip in clips]


def test_what_was_drawn_is_seen(scenes, verdicts):
    for scene, verdict in zip(scenes, verdicts, strict=True):
        assert all(agreement(scene, verdict).values()), (scene, verdict)


@pytest.mark.slow
def test_what_is_soft_and_noisy_is_seen(scenes, clips):
    for scene, clip in zip(scenes, clips, strict=True):
        verdict = judge(blurred(clip))
        assert all(agreement(scene, verdict).values()), (scene, verdict)


def test_other_prompts_are_disagreed_with(scenes, verdicts):
    others = scenes[1:] + scenes[:1]
    found = [agreement(scene, verdict) for scene, verdict in zip(others, verdicts, strict=True)]
    for name in ATTRIBUTES:
        right = sum(each[name] for each in found)
        same = sum(getattr(a, name) == getattr(b, name) for a, b in zip(scenes, others, strict=True))
        assert right == same, name


def test_nothing():
    verdict = judge(torch.full((9, 128, 128, 3), 128, dtype=torch.uint8))
    assert verdict.background == "gray"
    assert verdict.colour is None
    assert verdict.motion is None


def test_a_single_frame_has_no_motion(scenes, clips):
    for scene, clip in zip(scenes[:5], clips, strict=False):
        verdict = judge(clip[4:5])
        assert verdict.motion is None
        assert (verdict.colour, verdict.shape, verdict.size) == (scene.colour, scene.shape, scene.size)


def test_two_objects_are_none():
    """Their common box has no shape of the grammar."""
    scene = parse("a small red circle at the top stays still on a dark background")
    drawn = [
        render([each], 5, generator=torch.Generator().manual_seed(0), device=CPU)[0]
        for each in (scene, replace(scene, position="bottom"))
    ]
    assert judge(torch.maximum(*drawn)).shape is None


@pytest.mark.parametrize(("smeared", "seen"), [(0.02, "flickering"), (0.08, None), (0.95, "plain")])
def test_a_background_whose_tiles_are_smeared_does_not_flicker(smeared, seen):
    scene = parse("a small red circle at the top moves right on a flickering dark background")
    flickering, plain = (
        render([each], 17, generator=torch.Generator().manual_seed(0), device=CPU)[0].movedim(-1, 1).float()
        for each in (scene, replace(scene, texture="plain"))
    )
    tiles = (torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(1)) < smeared).float()
    mask = F.interpolate(tiles, scale_factor=8)[[0] + [1] * 4 + [2] * 4 + [3] * 4 + [4] * 4]
    assert judge(flickering.lerp(plain, mask).movedim(1, -1).to(torch.uint8)).texture == seen


def test_what_half_a_percent_reaches():
    values = torch.arange(400.0).view(1, 20, 20)
    assert most(values).tolist() == [398]
