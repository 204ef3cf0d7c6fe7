"""Samples of a run."""

import json

import torch
from helpers import SMALL, just_saved, own_weights
from training_helpers import CPU, run_settings

from kandinsky.checkpoint.replace_set import settle
from kandinsky.training.data import Batches, ShardDataset
from kandinsky.training.loop import make_accelerator
from kandinsky.training.sample_writer import SampleWriter
from kandinsky.training.settings import PretrainSettings


def test_samples_and_captions_are_written(whole_run):
    folder = whole_run[1].parent / "samples"
    names = [f"step-0000000{step}.{ending}" for step in (2, 4) for ending in ("json", "mp4")]
    assert sorted(file.name for file in folder.iterdir()) == names
    assert all((folder / name).stat().st_size > 0 for name in names)
    captions = [json.loads((folder / name).read_text()) for name in names[::2]]
    assert captions[0] == captions[1]
    assert len(captions[0]) == 2


def test_noise_and_captions_are_the_same_each_time(data, teacher, tmp_path):
    """And fit the clips: of so many captions, in so many steps."""
    weights = just_saved(own_weights(tmp_path / "w", SMALL))
    shape = {"batch_size": 4, "sample_prompts": 3}
    settings = run_settings(PretrainSettings, data, teacher, tmp_path, weights=weights, **shape)
    batches = Batches(ShardDataset(data), 4, seed=0, device=CPU)
    first = batches.first()
    seen = []

    def objective(noises, text, draws):
        seen.append((noises, text, draws))
        return torch.zeros_like(noises[0])

    writer = SampleWriter(settings, batches, make_accelerator(settings))
    settle(weights)  # which moves the VAE, in another process
    for step in (1, 2):
        writer.write(objective, step, noise_levels=4)
        next(batches)
    (noises, text, draws), again = seen
    assert noises.shape == (4, 3, *first.latents.shape[1:])
    assert torch.equal(text, first.text[:3].float())
    assert draws is None
    assert torch.equal(noises, again[0])
    assert not torch.equal(noises[0], noises[1])
    videos = [(tmp_path / "samples" / f"step-0000000{step}.mp4").read_bytes() for step in (1, 2)]
    assert videos[0] == videos[1]
    assert json.loads((tmp_path / "samples" / "step-00000002.json").read_text()) == first.captions[:3]
