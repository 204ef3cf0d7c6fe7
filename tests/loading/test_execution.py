"""How a model set is to run, told without any file."""

import dataclasses

import pytest
import torch

from kandinsky.config import MODULES
from kandinsky.loading import execution
from kandinsky.loading.execution import execution_of
from kandinsky.memory.modes import RESIDENT, STAGED
from kandinsky.model.attention import BACKENDS, TORCH
from kandinsky.model.precision import EXACT
from kandinsky.parallel.apply import NONE, SEQUENCE, TENSOR

DEFAULT = {
    "precision": "exact", "memory": "auto", "attention": "auto", "kernels": "auto", "dtype": None,
    "parallelism": "tensor", "distributed": True,
}  # fmt: skip


def executed(device_map="cpu", **changes):
    return execution_of(device_map, **{**DEFAULT, **changes})


def test_what_is_asked_for_becomes_values():
    found = executed(dict.fromkeys(MODULES, "cpu"), attention="torch", memory="resident", parallelism="sequence")
    assert (found.precision, found.attention, found.parallelism) == (EXACT, TORCH, SEQUENCE)
    assert dict(found.wanted_modes) == dict.fromkeys(MODULES, RESIDENT)
    assert found.devices == dict.fromkeys(MODULES, torch.device("cpu"))
    assert found.dtypes == dict.fromkeys(MODULES, torch.float32)
    assert (found.several, found.alone) == (False, True)
    default = executed()
    assert (default.attention, default.wanted_modes, default.dtype) == (None, None, None)
    assert executed(dtype=torch.bfloat16).dtypes == dict.fromkeys(MODULES, torch.bfloat16)


@pytest.mark.parametrize("name", ["cudnn", "bounded"])
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_attention_that_does_not_run_on_the_device(name, dtype, monkeypatch):
    monkeypatch.setattr("kandinsky.model.attention.find_spec", lambda _package: True)  # Triton may not be here
    with pytest.raises(ValueError, match=f"attention='{name}' needs bfloat16 on a CUDA device of compute capability"):
        executed(attention=name, dtype=dtype)


def test_attention_is_compared_with_what_the_dit_runs_in(monkeypatch):
    """Its device and dtype, not those of the other components."""
    places = {"dit": torch.device("cuda", 0), "vae": torch.device("cpu"), "text_embedder": torch.device("cpu")}
    monkeypatch.setattr(execution, "devices_of", lambda _device_map, **_: places)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    assert executed(attention="cudnn", kernels="torch", memory="resident").attention is BACKENDS["cudnn"]
    with pytest.raises(ValueError, match=r"attention='cudnn' needs bfloat16 .* this is torch.float32 on cuda:0"):
        executed(attention="cudnn", kernels="torch", memory="resident", dtype=torch.float32)


@pytest.mark.usefixtures("launcher")
def test_several_processes():
    together, each = executed(), executed(parallelism="none")
    assert (together.several, together.alone, together.parallelism) == (True, False, TENSOR)
    assert (each.several, each.alone, each.parallelism) == (True, True, NONE)
    assert executed(distributed=False).alone
    modes = {"dit": STAGED, "vae": RESIDENT, "text_embedder": RESIDENT}
    with pytest.raises(ValueError, match=r"memory=.*: processes that make a video together allow only 'resident'"):
        with_modes(modes)


def with_modes(modes):
    """A CPU has no memory modes but one: the modes are handed in behind the check of devices."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "modes_of", lambda _memory, _devices: modes)
        return executed(memory={name: mode.name for name, mode in modes.items()})


def test_it_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        executed().several = True
