"""Scenes and clips of them, drawn once."""

import random
from pathlib import Path

import pytest
import torch
from torch import Tensor
from world_helpers import CPU, world_weights

from kandinsky.training.world.grammar import Scene, all_scenes
from kandinsky.training.world.render import render


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    return random.Random(0).sample(all_scenes(), 40)


@pytest.fixture(scope="session")
def clips(scenes: list[Scene]) -> Tensor:
    """uint8 `[40, 9, 128, 128, 3]`"""
    return render(scenes, 9, generator=torch.Generator().manual_seed(0), device=CPU)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of tiny weights for clips of 32x32 pixels."""
    return world_weights(tmp_path_factory.mktemp("weights"))
