"""Figures of sets of clips."""

import random
from dataclasses import replace

import pytest
import torch
from world_helpers import CPU, blurred

from kandinsky.training.world.grammar import ATTRIBUTES, all_scenes, parse
from kandinsky.training.world.metrics import FEATURES, frechet_distance, random_features, sharpness
from kandinsky.training.world.render import render


@pytest.fixture(scope="module")
def sets():
    """Clips of scenes, others of the same scenes, and the first ones soft and noisy."""
    scenes = random.Random(0).sample(all_scenes(), 100)
    clips, other = (
        render(scenes, 3, size=(32, 32), generator=torch.Generator().manual_seed(seed), device=CPU) for seed in (0, 1)
    )
    return clips, other, torch.stack([blurred(clip) for clip in clips])


def test_sets_that_look_alike_are_near(sets):
    features, again, soft = (random_features(videos) for videos in sets)
    assert features.shape == (100, FEATURES)
    assert abs(frechet_distance(features, features)) < 1e-4
    assert frechet_distance(soft, features) > 2 * frechet_distance(again, features)


def test_soft_clips_are_less_sharp(sets):
    clips, _, soft = sets
    assert sharpness(soft).mean() < 0.6 * sharpness(clips).mean()


def test_sharpness_is_the_objects_whatever_the_background():
    """Edges of an object are as sharp on tiles that flicker."""
    scene = parse("a large red square in the middle moves right on a dark background")
    for background in ("dark", "gray", "light"):
        plain, flickering = (
            render([each], 5, generator=torch.Generator().manual_seed(0), device=CPU)
            for each in (replace(scene, background=background, texture=texture) for texture in ATTRIBUTES["texture"])
        )
        for change in (lambda clip: clip, blurred):
            sharp = [sharpness(change(clips[0])[None]).item() for clips in (plain, flickering)]
            assert sharp[1] == pytest.approx(sharp[0], rel=0.1)


def test_nothing_has_no_edges():
    assert sharpness(torch.full((1, 3, 64, 64, 3), 128, dtype=torch.uint8)).item() == 0


def test_a_step_is_as_sharp_as_can_be():
    """And an edge two pixels wide is 1 / (1 + 2)."""
    step = torch.zeros(1, 2, 40, 40, 3, dtype=torch.uint8)
    step[..., 20:, 0] = 200
    assert sharpness(step).item() == 1
    step[..., 19, 0], step[..., 20, 0] = 80, 120
    assert sharpness(step).item() == pytest.approx(1 / 3)


def test_distance_of_gaussians():
    """Deviations 2 and 3 along one axis, and means that are 1 apart along the other: (2 - 3)^2 + 1^2."""
    corners = 0.75**0.5 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    one, other = corners * torch.tensor([2.0, 1.0]), corners * torch.tensor([3.0, 1.0]) + torch.tensor([0.0, 1.0])
    assert frechet_distance(one, other) == pytest.approx((2 - 3) ** 2 + 1)
