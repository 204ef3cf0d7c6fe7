"""Training of the world's VAE."""

import json
import math
from itertools import count

import pytest
import torch
from world_helpers import CPU

from kandinsky.loading.components import load_vae
from kandinsky.training.world import vae as vae_module
from kandinsky.training.world.vae import (
    Stage,
    latent_deviation,
    new_vae,
    object_mask,
    rate,
    reconstruct,
    reconstruction_loss,
    to_pixels,
    train_vae,
    trained_vae,
)


def test_stages_follow_each_other(capsys):
    """By a clock that ticks six times for each look at it."""
    trained, ticks = new_vae(0), count(step=6)
    stages = (Stage(0.5, 1, 16, (1,)), Stage(1.0, 1, 16, (9,)))
    train_vae(trained, CPU, seconds=20, stages=stages, clock=lambda: next(ticks))
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(line["step"], line["seconds"], line["shape"][2]) for line in said] == [(1, 6, 1), (2, 12, 9), (3, 18, 9)]
    assert all(math.isfinite(line["loss"]) for line in said)
    assert not trained.training
    before = new_vae(0).state_dict()
    assert all(not torch.equal(value, before[name]) for name, value in trained.state_dict().items() if value.any())


def test_the_rate_rises_and_falls():
    assert rate(0, 0.0) < rate(1000, 0.5) < rate(1000, 0.0)
    assert rate(1000, 1.0) == 0


def test_object_and_background_weigh_the_same():
    """A missing red object on 16 of 1,024 pixels costs what a background that is as red does."""
    pixels = torch.zeros(1, 3, 1, 32, 32)
    pixels[:, 0, :, 4:8, 4:8] = 1
    missing = reconstruction_loss(torch.zeros_like(pixels), pixels)
    edges = 2 * (2 * 4) / (31 * 32)  # across and down, two sides of four pixels each
    assert missing.item() == pytest.approx((1 + 16 / 1024 + edges) / 3)
    assert reconstruction_loss(pixels, pixels) == 0


def test_an_object_is_what_has_a_hue():
    pixels = to_pixels(torch.tensor([[[[[128, 128, 128], [200, 60, 60], [140, 130, 120]]]]], dtype=torch.uint8))
    assert pixels.shape == (1, 3, 1, 1, 3)
    assert object_mask(pixels).flatten().tolist() == [False, True, False]


def test_divergence_is_that_of_normal_latents():
    """Of (mean, variance): (mean^2 + variance - 1 - log variance) / 2."""
    torch.manual_seed(0)
    vae, pixels = new_vae(0), torch.zeros(1, 3, 1, 16, 16)
    with torch.no_grad():
        made, divergence = reconstruct(vae, pixels)
        posterior = vae.encode(pixels).latent_dist
    normal = torch.distributions.Normal(posterior.mean, posterior.std)
    expected = torch.distributions.kl_divergence(normal, torch.distributions.Normal(0, 1)).mean()
    assert made.shape == pixels.shape
    assert divergence.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_trained_one_is_trained_on(tmp_path):
    vae = new_vae(3)
    vae.save_pretrained(tmp_path)
    again = trained_vae(tmp_path)
    assert all(torch.equal(value, again.state_dict()[name]) for name, value in vae.state_dict().items())
    assert all(parameter.requires_grad for parameter in again.parameters())


@pytest.mark.slow
def test_latents_are_scaled_to_one():
    vae = new_vae(0)
    deviation = latent_deviation(vae, CPU)
    assert 0 < deviation < 10
    assert latent_deviation(vae, CPU) == deviation


def test_a_vae_takes_the_place_of_another_as_a_whole(tmp_path, monkeypatch):
    """Files of the old one that the new one has not are not read with it; what is no part of a model stays."""
    for name in ("train_vae", "quality"):
        monkeypatch.setattr(vae_module, name, lambda *_, **__: None)
    monkeypatch.setattr(vae_module, "latent_deviation", lambda *_: 0.5)
    (tmp_path / "vae").mkdir()
    for name in ("diffusion_pytorch_model.safetensors.index.json", "LICENSE"):
        (tmp_path / "vae" / name).write_text("old")
    vae_module.main([str(tmp_path), "--device", "cpu"])
    names = {"config.json", "diffusion_pytorch_model.safetensors", "LICENSE"}
    assert {path.name for path in (tmp_path / "vae").iterdir()} == names
    assert load_vae(tmp_path / "vae", device=CPU, dtype=torch.float32).config.scaling_factor == 2
