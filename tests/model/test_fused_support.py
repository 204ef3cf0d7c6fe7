"""For which devices Triton's kernels are not tried, and why."""

import pytest
import torch

from kandinsky.model import fused_support
from kandinsky.model.fused_support import first_line, why_not_fused

CUDA = torch.device("cuda", 0)


@pytest.fixture
def card(monkeypatch):
    """A machine with Triton and a card of compute capability 8.0; `card(...)` changes it."""

    def change(*, capability=(8, 0), hip=None, triton=True):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
        monkeypatch.setattr(torch.version, "hip", hip)
        monkeypatch.setattr(fused_support, "find_spec", lambda _name: object() if triton else None)

    change()
    return change


def test_where_they_are_tried(card):
    assert why_not_fused(CUDA) is None
    card(capability=(12, 0))
    assert why_not_fused(CUDA) is None


def test_where_they_are_not(card):
    assert why_not_fused(torch.device("cpu")) == "Triton's kernels need a CUDA device, this is cpu"
    card(capability=(7, 5))
    assert why_not_fused(CUDA) == "Triton's kernels need compute capability 8.0, this GPU has 7.5"
    card(hip="7.0")
    assert why_not_fused(CUDA) == "Triton's kernels are not tested on ROCm"
    card(triton=False)
    assert why_not_fused(CUDA) == "the package triton is not installed"


def test_an_error_in_one_line():
    assert first_line(ValueError("one\ntwo")) == "ValueError: one"
    assert first_line(KeyError()) == "KeyError"
    assert len(first_line(ValueError("x" * 1000))) < 250
