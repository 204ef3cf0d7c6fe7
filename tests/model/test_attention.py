"""Every attention backend that runs here against a float64 oracle."""

import math

import pytest
import torch
from helpers import relative_error
from torch import nn

from kandinsky.model.attention import (
    BACKENDS,
    TORCH,
    Attention,
    _check_bounded,
    check_attention,
    choose_attention,
    fastest,
    torch_sdpa,
)
from kandinsky.model.bounded import logit_bound, query_scale


def oracle(qkv):
    query, key, value = qkv.double().permute(1, 2, 0, 3)
    weights = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return (weights @ value).transpose(0, 1)


@pytest.mark.parametrize("tokens", [1, 17, 130])
def test_torch_backend(tokens):
    qkv = torch.randn(tokens, 3, 2, 64)
    output = BACKENDS["torch"].attend(qkv)
    assert output.shape == (tokens, 2, 64)
    assert relative_error(output, oracle(qkv)) < 1e-5


def test_auto_on_a_cpu_is_torch():
    arguments = {"device": torch.device("cpu"), "dtype": torch.float32, "head_dim": 64, "bound": 12.0}
    assert choose_attention("auto", **arguments) is BACKENDS["torch"]
    with pytest.raises(
        ValueError, match=r"attention='bounded' needs head_dim 64 in bfloat16 on a CUDA device, this is"
    ):
        _check_bounded(**arguments)


def test_a_wrong_backend_is_refused(monkeypatch):
    """What is faster but off by more than rounding never wins."""
    monkeypatch.setattr("kandinsky.model.attention._median_ms", lambda attend, _: 1.0 if attend is torch_sdpa else 0.1)
    monkeypatch.setattr("kandinsky.model.attention.CHECK_TOKENS", 173)  # for the error any number will do
    wrong = Attention("wrong", lambda qkv: torch_sdpa(qkv) * 1.01)
    broken = Attention("broken", lambda qkv: torch_sdpa(qkv) * math.nan)
    assert fastest([TORCH, wrong, broken], device=torch.device("cpu"), head_dim=64) is TORCH


def test_logit_bound_holds():
    query_norm, key_norm = (nn.LayerNorm(64) for _ in range(2))
    assert logit_bound(query_norm, key_norm) == pytest.approx(64 * math.log2(math.e) / 8)
    for norm in (query_norm, key_norm):
        nn.init.normal_(norm.weight, 1.0, 0.3)
        nn.init.normal_(norm.bias, 0.0, 0.3)
    query, key = query_norm(torch.randn(2000, 64)), key_norm(torch.randn(2000, 64))
    assert (query @ key.T).abs().max() * query_scale(64) < logit_bound(query_norm, key_norm)


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"attention='best': allowed are 'auto', 'torch'"):
        check_attention("best")


def test_backend_whose_package_is_missing():
    with pytest.raises(ValueError, match="needs the package flash_attn_interface"):
        check_attention("flash_attn_3")
