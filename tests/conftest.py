"""Shared fixtures: where the golden files are, pipelines of tiny weights, sizes small enough for a CPU."""

import ctypes
import dataclasses
import json
import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

# Read when torch is loaded, here and in processes that tests start: threads that wait sleep. Where other work shares
# the cores, threads that spin make the tests several times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Freed memory stays with the process: glibc else gives each large tensor back and asks the kernel for the next one,
# whose zeroing of pages is a third of a decoding's time. Read when a process starts: see also `pytest_configure`.
os.environ.setdefault("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=2147483647:glibc.malloc.trim_threshold=2147483647")

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from kandinsky import factory
from kandinsky.checkpoint.model_set import write_model_set
from kandinsky.config import FLASH_512, ModelSet
from kandinsky.factory import get_T2V_pipeline
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.video_shape import VideoShape

ROOT = Path(__file__).parents[1]
TINY = ROOT / "tests" / "weights"
"""Random weights of the published architecture, a few megabytes; `ROOT / "weights" / "tiny"` is trained."""
SMALL = dataclasses.replace(FLASH_512, sizes=((64, 64), (64, 96)))
"""The model set with sizes that a CPU makes in a second."""


def pytest_configure() -> None:
    """Set glibc's tunables in this process too."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        for parameter in (-1, -3):  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD
            libc.mallopt(parameter, 2**31 - 1)


def allow_small_sizes(patch: Callable[[object, str, object], object]) -> None:
    """Let the commands, and pipelines loaded from here on, make `SMALL` sizes; `patch` is a kind of setattr."""
    from_request = VideoShape.from_request
    patch(VideoShape, "from_request", lambda *args, **_: from_request(*args, model_set=SMALL))
    patch(factory, "MODEL_SETS", {512: SMALL})


def fork_server() -> multiprocessing.context.ForkServerContext:
    """Starts processes that have everything imported: each is there in a moment."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["kandinsky.factory", "diffusers.models.autoencoders", "transformers"])
    return context


def golden_folder() -> Path:
    """The golden files beside the repository where they are, else the copy in it."""
    beside = ROOT.parent / "shared" / "golden"
    return beside if beside.is_dir() else Path(__file__).parent / "golden"


def golden_case(name: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """Arguments of a published pipeline call, and what it returned."""
    path = golden_folder() / f"pipeline_{name}.safetensors"
    with safe_open(path, "pt") as handle:
        call = json.loads(handle.metadata()["call"])
    return call, load_file(path)


def own_weights(folder: Path, model_set: ModelSet) -> Path:
    """The tiny weights in `folder`, declared as another model set."""
    for part in TINY.iterdir():
        (folder / part.name).symlink_to(part)
    write_model_set(folder, model_set)
    return folder


def relative_error(value: torch.Tensor, reference: torch.Tensor) -> float:
    value, reference = value.double().cpu(), reference.double().cpu()
    return ((value - reference).norm() / reference.norm()).item()


def psnr(frames: torch.Tensor, reference: torch.Tensor) -> float:
    return 10 * torch.log10(255**2 / (frames.double() - reference.double()).square().mean()).item()


@pytest.fixture(scope="session")
def golden() -> Path:
    return golden_folder()


@pytest.fixture(scope="session")
def golden_pipe() -> Kandinsky4T2VPipeline:
    """The weights that made the golden files, in float32 on the CPU."""
    return get_T2V_pipeline("cpu", cache_dir=golden_folder() / "tiny_weights", local_files_only=True, progress=False)


@pytest.fixture(scope="session")
def pipe() -> Kandinsky4T2VPipeline:
    """Random tiny weights with small sizes."""
    pipe = get_T2V_pipeline("cpu", cache_dir=TINY, local_files_only=True, progress=False)
    pipe.model_set = SMALL
    return pipe
