"""Every attention backend that runs here against a float64 oracle."""

import pytest
import torch
from conftest import relative_error

from kandinsky.model.attention import BACKENDS, check_attention, choose_attention


def oracle(qkv):
    query, key, value = qkv.double().permute(1, 2, 0, 3)
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(0, 1)


@pytest.mark.parametrize("tokens", [1, 17, 130])
def test_torch_backend(tokens):
    qkv = torch.randn(tokens, 3, 2, 64)
    output = BACKENDS["torch"](qkv)
    assert output.shape == (tokens, 2, 64)
    assert relative_error(output, oracle(qkv)) < 1e-5


def test_auto_on_a_cpu_is_torch():
    assert choose_attention("auto", torch.device("cpu")) is BACKENDS["torch"]


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"attention='best': allowed are 'auto', 'torch'"):
        check_attention("best")


def test_backend_whose_package_is_missing():
    with pytest.raises(ValueError, match="needs the package flash_attn_interface"):
        check_attention("flash_attn_3")


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["torch", "cudnn"])
@pytest.mark.parametrize("tokens", [225, 1008])
def test_backends_on_a_gpu(backend, tokens):
    qkv = torch.randn(tokens, 3, 4, 64, device="cuda", dtype=torch.bfloat16)
    assert relative_error(BACKENDS[backend](qkv), oracle(qkv)) < 5e-3
