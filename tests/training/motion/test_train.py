"""Training from the command: it learns, writes weights, and goes on from them."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from kandinsky.interpolate.network import FlowNetwork
from kandinsky.output.video import VideoWriter
from kandinsky.parallel.ranks import Ranks
from kandinsky.training.motion.train import Batches, Objective, Settings, main, rate_at, step_of


def write(path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, width=128, height=96, fps=8) as writer:
        writer.write(np.stack([np.roll(noise, 2 * shift, axis=1) for shift in range(9)]))
        writer.finish()


@pytest.mark.slow
def test_weights_are_written_and_gone_on_from(tmp_path, capsys):
    write(tmp_path / "a.mp4")
    write(tmp_path / "b.mp4")
    common = ["--seconds", "0", "--batch", "3", "--size", "64", "--device", "cpu"]
    videos = ["--videos", str(tmp_path / "a.mp4"), "--held-back", str(tmp_path / "b.mp4")]
    main([str(tmp_path / "one.safetensors"), *videos, *common])
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert said["step"] == 1
    assert set(said["left_out"]) == {"a", "b"}
    weights = load_file(tmp_path / "one.safetensors")
    FlowNetwork().load_state_dict({name: value.float() for name, value in weights.items()})
    assert all(value.dtype == torch.float16 for value in weights.values())
    main([str(tmp_path / "two.safetensors"), *videos, *common, "--initial", str(tmp_path / "one.safetensors")])
    more = load_file(tmp_path / "two.safetensors")
    assert any(not torch.equal(more[name], weights[name]) for name in weights)


def settings(device="cpu", **others):
    video = torch.randint(0, 256, (5, 3, 64, 64), generator=torch.Generator().manual_seed(0)).byte()
    usual = {
        "videos": {"a": video},
        "held_back": {},
        "target": None,
        "seconds": 100.0,
        "seed": 0,
        "batch": 4,
        "size": 64,
    }
    usual |= {"rate": 1e-3, "graphs": False, "device": torch.device(device), "ranks": Ranks()}
    return Settings(**{**usual, **others})


def test_the_rate_rises_and_falls():
    assert rate_at(settings(), 0, 0.0) == pytest.approx(1e-3 / 200)
    assert rate_at(settings(), 10_000, 50.0) == pytest.approx(1e-3 * (0.02 + 0.98 / 2))
    assert rate_at(settings(), 10_000, 130.0) == pytest.approx(2e-5)


@pytest.mark.slow
def test_each_process_draws_a_batch_of_its_own():
    first, other = (Batches(settings(ranks=Ranks(rank, 2))).draw() for rank in range(2))
    again = Batches(settings(ranks=Ranks(0, 2))).draw()
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[2].frame, again[2].frame)
    assert first[0].shape == other[0].shape == (4, 3, 64, 64)
    assert not torch.equal(first[0], other[0])


@pytest.mark.gpu
def test_graphs_change_nothing():
    """Gradients of two batches are those of steps without graphs."""
    torch.manual_seed(0)
    network = FlowNetwork().cuda()
    for level in network.levels:
        torch.nn.init.normal_(level.leave.weight, std=0.01)
    batches = Batches(settings("cuda"))
    drawn = [batches.draw() for _ in range(2)]
    found = []
    for graphs in (False, True):
        run = step_of(Objective(network), graphs=graphs, device=torch.device("cuda"))
        for batch in drawn:
            total = run(*batch).total.item()
            found.append((total, torch.cat([value.grad.flatten() for value in network.parameters()])))
    for (total, gradient), (other_total, other) in zip(found[:2], found[2:], strict=True):
        assert other_total == pytest.approx(total, rel=1e-3)
        assert (other - gradient).norm() < 0.02 * gradient.norm()  # bfloat16, and sums in another order
