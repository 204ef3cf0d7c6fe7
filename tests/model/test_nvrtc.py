"""Compiling and launching without an installed compiler."""

import ctypes

import pytest
import torch

from kandinsky.model import nvrtc

SOURCE = b'extern "C" __global__ void fill(int* out) { *out = VALUE; }'


class Driver:
    """One that finds everything wrong."""

    @staticmethod
    def cuGetErrorString(code, text):  # noqa: N802  # the driver's name
        text._obj.value = f"error text {code}".encode()


def test_an_error_has_the_drivers_text(monkeypatch):
    monkeypatch.setattr(nvrtc, "driver", lambda: Driver)
    nvrtc.done(0)
    with pytest.raises(RuntimeError, match="CUDA driver error 700: error text 700"):
        nvrtc.done(700)


@pytest.mark.skipif(torch.version.cuda is not None, reason="is about a PyTorch without CUDA")
def test_without_cuda_nothing_is_hopper():
    assert not nvrtc.is_hopper(0)


def test_a_library_that_is_nowhere(monkeypatch):
    def missing(path):
        raise OSError(path)

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(OSError, match="libnvrtc"):
        nvrtc.library()


@pytest.mark.gpu
def test_macros_and_errors_of_a_source():
    if not nvrtc.is_hopper(0):
        pytest.skip("needs a Hopper GPU")
    one, two = (nvrtc.compile_source(SOURCE, "fill.cu", {"VALUE": value}) for value in (1, 2))
    assert one != two
    nvrtc.load(one, "fill", device=0, shared=1024)
    with pytest.raises(RuntimeError, match=r"fill\.cu does not compile: (.|\n)*VALUE"):
        nvrtc.compile_source(SOURCE, "fill.cu", {})
