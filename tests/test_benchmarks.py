"""What benchmarks build on is still there; they themselves need GPUs."""

import importlib.util
import sys

import torch
from helpers import ROOT

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.loading.components import load_dit


def test_weights_in_memory_are_loaded_as_from_a_file(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    spec = importlib.util.spec_from_file_location("parallel_benchmark", ROOT / "benchmarks" / "parallel.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    state = random_dit(SIZES["tiny"].dit, torch.Generator().manual_seed(0)).state_dict()
    loaded = load_dit(module.InMemory(state), device=torch.device("cpu"), dtype=torch.float32).state_dict()
    assert all(torch.equal(value.float(), loaded[name]) for name, value in state.items())
