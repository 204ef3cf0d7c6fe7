"""A background that the tiny model never saw: what is trained with, what is kept; the base knows nothing of it."""

import pytest
import torch
from helpers import ROOT
from safetensors.torch import save_file

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import read_lora
from kandinsky.config import FLASH_512
from kandinsky.training.data import ShardDataset
from kandinsky.training.world.grammar import all_scenes, caption, new_scenes, split
from kandinsky.training.world.judge import judge
from kandinsky.training.world.novelty import captions_to_keep, held_out, main, new_clips, report
from kandinsky.training.world.render import render

WEIGHTS = ROOT / "weights" / "tiny"
CPU = torch.device("cpu")


def test_nothing_that_is_judged_is_trained_with():
    trained = new_scenes("texture", "striped")[:64]
    assert not {caption(scene) for scene in trained} & {caption(scene) for scene in held_out(120)}
    assert not set(captions_to_keep()) & {caption(scene) for scene in split()[1]}
    assert not any("striped" in caption(scene) for scene in all_scenes())


def test_stripes_are_seen_where_they_are_allowed():
    scenes = held_out(8)
    clips = render(scenes, 17, generator=torch.Generator().manual_seed(0), device=CPU)
    assert [judge(clip, new_textures=True).texture for clip in clips] == ["striped"] * 8
    assert [judge(clip).texture for clip in clips] == ["flickering"] * 8
    flicker = [scene for scene in split()[1] if scene.texture == "flickering"][:8]
    clips = render(flicker, 17, generator=torch.Generator().manual_seed(0), device=CPU)
    assert [judge(clip, new_textures=True).texture for clip in clips] == ["flickering"] * 8


def test_clips(tmp_path):
    first = next(new_clips(WEIGHTS, CPU, clips=1))
    assert "striped" in first.caption
    assert tuple(first.latents.shape) == (5, 16, 16, 16)
    assert tuple(first.text.shape) == (24, 128)
    assert tmp_path.is_dir()


@pytest.mark.slow
def test_the_base_does_not_know_it(tmp_path):
    """A LoRA of zeros is the base."""
    shapes = open_checkpoint(WEIGHTS / FLASH_512.dit_file).shapes
    name = "text_embeddings.in_layer"
    rows, columns = shapes[f"{name}.weight"]
    file = tmp_path / "nothing.safetensors"
    save_file({f"{name}.lora_A.weight": torch.ones(1, columns), f"{name}.lora_B.weight": torch.zeros(rows, 1)}, file)
    assert read_lora(file, {name: (rows, columns)}).layers
    rows_of = report(WEIGHTS, [file], CPU, prompts=2)
    assert list(rows_of) == [
        "base, new captions",
        "nothing, new captions",
        "base, old captions",
        "nothing, old captions",
    ]
    assert rows_of["base, new captions"]["texture"] == 0
    assert rows_of["base, old captions"]["all"] == 1
    assert rows_of["nothing, old captions"] == rows_of["base, old captions"]


@pytest.mark.slow
def test_data_in_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "kandinsky.training.world.novelty.new_clips", lambda weights, device: new_clips(weights, device, clips=1)
    )
    main(["data", str(tmp_path / "out"), "--weights", str(WEIGHTS)])
    assert len(ShardDataset(tmp_path / "out").items) == 1
    assert len((tmp_path / "out" / "keep.txt").read_text().splitlines()) == 512
