"""The synthetic world: captions, clips that show them, a judge that sees it, figures of sets of clips."""

import random
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kandinsky.training.world.grammar import ATTRIBUTES, Scene, all_scenes, caption, parse, split
from kandinsky.training.world.judge import agreement, judge
from kandinsky.training.world.metrics import frechet_distance, random_features, sharpness
from kandinsky.training.world.render import render
from kandinsky.training.world.wording import reword

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def scenes():
    return random.Random(0).sample(all_scenes(), 48)


@pytest.fixture(scope="module")
def clips(scenes):
    return render(scenes, 9, generator=torch.Generator().manual_seed(0), device=CPU)


def blurred(clip, sigma=1.5, noise=8.0):
    """As a network might show it: soft, and with noise."""
    steps = torch.arange(-4, 5).float()
    kernel = torch.exp(-steps.square() / (2 * sigma**2))
    kernel = torch.outer(kernel, kernel) / kernel.sum() ** 2
    pixels = F.pad(clip.float().permute(0, 3, 1, 2), (4, 4, 4, 4), mode="replicate")
    soft = F.conv2d(pixels, kernel.expand(3, 1, 9, 9), groups=3)
    noisy = soft + noise * torch.randn(soft.shape, generator=torch.Generator().manual_seed(0))
    return noisy.clamp(0, 255).permute(0, 2, 3, 1).to(torch.uint8)


def test_captions_say_everything():
    scenes = all_scenes()
    captions = {caption(scene): scene for scene in scenes}
    assert len(captions) == len(scenes) == 4896
    assert parse("a small red circle at the top moves right on a dark background") == Scene(
        size="small", colour="red", shape="circle", position="top", motion="right", background="dark"
    )
    assert all(parse(text) == scene for text, scene in random.Random(1).sample(list(captions.items()), 5))


def test_what_is_not_in_the_grammar_is_refused():
    with pytest.raises(ValueError, match="a purple dog"):
        parse("a purple dog")
    values = {"size": "small", "colour": "red", "shape": "circle", "background": "dark", "motion": "up"}
    with pytest.raises(ValueError, match="position='top' with motion='up': allowed are left, middle, right"):
        Scene(**values, position="top")


def test_held_out_scenes_are_not_trained_with():
    train, held_out = split()
    assert not set(train) & set(held_out)
    assert len(held_out) == 490
    for part in (train, held_out):
        for name, values in ATTRIBUTES.items():
            assert {getattr(scene, name) for scene in part} == set(values)


def test_a_seed_gives_the_same_clips(scenes):
    one, other, third = (
        render(scenes[:2], 9, size=(64, 64), generator=torch.Generator().manual_seed(seed), device=CPU)
        for seed in (0, 0, 1)
    )
    assert one.shape == (2, 9, 64, 64, 3)
    assert one.dtype == torch.uint8
    assert torch.equal(one, other)
    assert not torch.equal(one, third)


@pytest.mark.parametrize("change", [lambda clip: clip, blurred], ids=["as drawn", "soft and noisy"])
def test_the_judge_sees_what_was_drawn(scenes, clips, change):
    for scene, clip in zip(scenes, clips, strict=True):
        verdict = judge(change(clip))
        assert all(agreement(scene, verdict).values()), (scene, verdict)


def test_the_judge_disagrees_with_other_prompts(scenes, clips):
    others = scenes[1:] + scenes[:1]
    found = [agreement(scene, judge(clip)) for scene, clip in zip(others, clips, strict=True)]
    for name in ATTRIBUTES:
        right = sum(each[name] for each in found)
        same = sum(getattr(a, name) == getattr(b, name) for a, b in zip(scenes, others, strict=True))
        assert right == same, name


def test_the_judge_of_nothing():
    verdict = judge(torch.full((9, 128, 128, 3), 128, dtype=torch.uint8))
    assert verdict.background == "gray"
    assert verdict.colour is None
    assert verdict.motion is None


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


def test_figures_of_sets():
    scenes = random.Random(0).sample(all_scenes(), 144)
    clips, other = (
        render(scenes, 9, size=(64, 64), generator=torch.Generator().manual_seed(seed), device=CPU) for seed in (0, 1)
    )
    features, again, soft = random_features(clips), random_features(other), torch.stack([blurred(x) for x in clips])
    assert abs(frechet_distance(features, features)) < 1e-4
    assert frechet_distance(random_features(soft), features) > 2 * frechet_distance(again, features)
    assert sharpness(soft).mean() < 0.6 * sharpness(clips).mean()


def test_sharpness_is_the_objects_whatever_the_background():
    """Edges of an object are as sharp on tiles that flicker."""
    scene = parse("a large red square in the middle moves right on a dark background")
    for background in ("dark", "gray", "light"):
        plain, flickering = (
            render([each], 9, generator=torch.Generator().manual_seed(0), device=CPU)
            for each in (replace(scene, background=background, texture=texture) for texture in ATTRIBUTES["texture"])
        )
        for change in (lambda clip: clip, blurred):
            sharp = [sharpness(change(clips[0])[None]).item() for clips in (plain, flickering)]
            assert sharp[1] == pytest.approx(sharp[0], rel=0.1)
    assert sharpness(torch.full((1, 3, 64, 64, 3), 128, dtype=torch.uint8)).item() == 0


def test_other_wordings_fit_their_scene():
    scene, choice = parse("a small red circle at the top moves right on a dark background"), random.Random(0)
    texts = {reword(scene, choice) for _ in range(200)}
    assert len(texts) > 100
    others = {"large", "big", "green", "blue", "square", "box", "bottom", "left", "light", "white", "gray"}
    assert not any(others & set(text.replace(",", "").replace(".", "").split()) for text in texts)
