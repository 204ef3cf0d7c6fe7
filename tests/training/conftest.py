"""Data, a teacher and whole runs, made once for all tests of training."""

import json
from pathlib import Path

import pytest
import torch
from model_helpers import SMALL_DIT
from safetensors.torch import save_file
from training_helpers import KINDS, run

from kandinsky.checkpoint.random_weights import random_dit


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two shards of ten clips, of two shapes, each of one colour."""
    folder = tmp_path_factory.mktemp("data")
    generator = torch.Generator().manual_seed(0)
    for shard in range(2):
        tensors = {}
        for number in range(5):
            frames = 1 + 2 * (number % 2)
            colour = torch.randn(16, generator=generator).bfloat16()
            tensors[f"latents.{number}"] = colour.expand(frames, 4, 4, 16).contiguous()
            tensors[f"text.{number}"] = torch.randn(6, 64, generator=generator).bfloat16()
        items = json.dumps([{"id": f"{shard}-{n}", "caption": f"clip {n}"} for n in range(5)])
        save_file(tensors, folder / f"shard-{shard:05}.safetensors", metadata={"items": items})
    return folder


@pytest.fixture(scope="session")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    dit = random_dit(SMALL_DIT, torch.Generator().manual_seed(1), dtype=torch.float32)
    save_file(dit.state_dict(), path)
    return path


@pytest.fixture(scope="session", params=KINDS, ids=["pretrain", "ladd"])
def whole_run(request: pytest.FixtureRequest, data: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory):
    """A run of each kind: its settings' class and the checkpoint after four steps, with samples after two and four."""
    output = tmp_path_factory.mktemp("whole")
    return request.param, run(request.param, data, teacher, output, sample_every=2, sample_prompts=2)
