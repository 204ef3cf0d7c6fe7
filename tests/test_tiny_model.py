"""The embedded tiny model makes what prompts say, as a judge that is no network sees it."""

import pytest
import torch
from helpers import ROOT

from kandinsky.factory import get_T2V_pipeline
from kandinsky.training.world.grammar import caption, parse, split
from kandinsky.training.world.judge import agreement, judge

LORA = ROOT / "weights" / "tiny" / "lora" / "striped.safetensors"
PROMPTS = (
    "a large red circle in the middle moves right on a dark background",
    "a small yellow triangle on the left moves down on a light background",
    "a large blue cross at the bottom stays still on a flickering gray background",
)


@pytest.fixture(scope="module")
def tiny():
    return get_T2V_pipeline("cpu", cache_dir=ROOT / "weights" / "tiny", local_files_only=True, progress=False)


@pytest.mark.parametrize(
    "prompt", [PROMPTS[0], *(pytest.param(prompt, marks=pytest.mark.slow) for prompt in PROMPTS[1:])]
)
def test_video_shows_the_prompt(tiny, prompt):
    video = tiny(prompt, time_length=2, seed=0, output_type="pt")
    assert video.shape == (17, 128, 128, 3)
    assert all(agreement(parse(prompt), judge(video)).values()), judge(video)


def test_an_image_shows_the_object(tiny):
    scene = split()[1][0]
    (image,) = tiny(caption(scene), time_length=0, seed=0, output_type="pt")
    verdict = judge(image[None] if image.ndim == 3 else image)
    assert (verdict.colour, verdict.shape) == (scene.colour, scene.shape)


def test_its_lora_makes_what_the_model_never_saw(tiny):
    """A striped background; without the LoRA, the weights are those of before."""
    prompt = "a small yellow triangle at the top moves left on a striped gray background"
    before = {name: value.clone() for name, value in tiny.dit.state_dict().items()}
    tiny.load_lora_weights(LORA)
    try:
        video = tiny(prompt, time_length=2, seed=0, output_type="pt")
    finally:
        tiny.unload_lora_weights()
    verdict = judge(video, new_textures=True)
    assert all(agreement(parse(prompt), verdict).values()), verdict
    assert all(torch.equal(value, before[name]) for name, value in tiny.dit.state_dict().items())
    assert LORA.stat().st_size <= 10**6
