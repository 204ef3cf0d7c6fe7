"""Results of several processes, which are started once for all tests."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from rank_processes import FOUR_HEADS, run_together
from safetensors.torch import save_file

from kandinsky.checkpoint.random_weights import random_dit

SMALL_JOBS = ["ranks", "boxes", "sums", "dit", "strips", "watchdog"]
LARGE_JOBS = ["pipelines", "jobs"]


@dataclass(frozen=True)
class Processes:
    """What each rank left of each job, by the job's name, and the folder that they worked in."""

    folder: Path
    ranks: list[dict]

    @property
    def size(self) -> int:
        return len(self.ranks)

    def of(self, job: str) -> list:
        """Results of one job, rank by rank."""
        return [rank[job] for rank in self.ranks]


@pytest.fixture(scope="session")
def dit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dit") / "dit.safetensors"
    save_file(random_dit(FOUR_HEADS, torch.Generator().manual_seed(5), dtype=torch.float32).state_dict(), path)
    return path


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory, small_weights: Path, dit_file: Path) -> Processes:
    """Two processes: every job."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "weights").symlink_to(small_weights)
    (folder / "dit.safetensors").symlink_to(dit_file)
    return Processes(folder, run_together(2, folder, SMALL_JOBS + LARGE_JOBS))


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory, dit_file: Path) -> Processes:
    """Four: some have neighbours on both sides, and exchanges have two stages."""
    folder = tmp_path_factory.mktemp("four")
    (folder / "dit.safetensors").symlink_to(dit_file)
    return Processes(folder, run_together(4, folder, SMALL_JOBS))


@pytest.fixture(params=["two", pytest.param("four", marks=pytest.mark.slow)])
def processes(request: pytest.FixtureRequest) -> Processes:
    """Two processes, then four."""
    return request.getfixturevalue(request.param)
