"""Which operations a decoder gets."""

import sys
from types import ModuleType

import pytest
import torch

from kandinsky.vae import best_ops as module
from kandinsky.vae.best_ops import best_ops, launch
from kandinsky.vae.norm import PlainOps

CUDA = torch.device("cuda", 0)
CPU = torch.device("cpu")


@pytest.fixture
def config(decoder):
    return decoder.config


@pytest.fixture
def card(monkeypatch):
    """A card that Triton's kernels are tried on, and their module, with the operations that are handed in."""

    def change(ops, *, capability=(9, 0), hip=None, triton=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(module, "find_spec", lambda _name: object() if triton else None)
        kernels = ModuleType("kandinsky.vae.kernels")
        kernels.TritonOps = ops
        monkeypatch.setitem(sys.modules, "kandinsky.vae.kernels", kernels)
        monkeypatch.setattr(module, "launch", lambda ops, config, **_place: launch_on_cpu(ops, config))

    def launch_on_cpu(ops, config):
        launch(ops, config, device=CPU, dtype=torch.float32)

    return change


class Works(PlainOps):
    """Stands for Triton's."""


class Fails(PlainOps):
    """As they are without a C compiler."""

    def add(self, *_arguments):
        raise FileNotFoundError("cc")


def test_a_cpu_runs_the_plain_operations(config):
    assert best_ops(CPU, config) == PlainOps()


def test_what_runs_is_taken(card, config):
    card(Works)
    assert type(best_ops(CUDA, config)) is Works


@pytest.mark.parametrize(
    ("ops", "machine"),
    [(Fails, {}), (Works, {"capability": (7, 5)}), (Works, {"hip": "7.0"}), (Works, {"triton": False})],
)
def test_what_does_not_run_is_not_taken(card, config, ops, machine):
    card(ops, **machine)
    assert best_ops(CUDA, config) == PlainOps()


def test_channels_that_the_kernels_cannot_have(card, config):
    from dataclasses import replace

    card(Works)
    assert best_ops(CUDA, replace(config, norm_num_groups=3)) == PlainOps()


@pytest.mark.gpu
def test_on_a_gpu_the_kernels_run(config):
    assert type(best_ops(CUDA, config)).__name__ == "TritonOps"
