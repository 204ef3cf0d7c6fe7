"""Training from the command: it learns, writes weights, and goes on from them."""

import json

import numpy as np
import torch
from safetensors.torch import load_file

from kandinsky.interpolate.network import FlowNetwork
from kandinsky.output.video import VideoWriter
from kandinsky.training.motion.train import main


def write(path):
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    with VideoWriter(path, width=128, height=96, fps=8) as writer:
        writer.write(np.stack([np.roll(noise, 2 * shift, axis=1) for shift in range(9)]))
        writer.finish()


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
