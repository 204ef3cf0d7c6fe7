"""Attention backends against a float64 oracle, and which one is taken."""

import math

import pytest
import torch
from helpers import relative_error
from model_helpers import oracle

from kandinsky.model.attention import (
    BACKENDS,
    BOUNDED,
    TORCH,
    Attention,
    attention_of,
    choose_attention,
    fastest,
    torch_sdpa,
)

ON_A_CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "head_dim": 64, "bound": 12.0}
WRONG = Attention("wrong", lambda qkv: torch_sdpa(qkv) * 1.01)


def fail(_qkv):
    raise RuntimeError("not built for this device")


def first_of(*candidates, fast):
    """What is taken of some backends on a CPU, where `fast` are ten times as fast as the others."""
    return fastest(
        list(candidates),
        device=torch.device("cpu"),
        head_dim=64,
        tokens=173,
        measure=lambda attend, _: 0.1 if attend in {backend.attend for backend in fast} else 1.0,
    )


@pytest.mark.parametrize("tokens", [1, 17, 130])
def test_torch_equals_the_oracle(tokens):
    qkv = torch.randn(tokens, 3, 2, 64)
    output = BACKENDS["torch"].attend(qkv)
    assert output.shape == (tokens, 2, 64)
    assert relative_error(output, oracle(qkv)) < 1e-5


def test_names():
    assert attention_of("auto") is None
    assert attention_of("cudnn") is BACKENDS["cudnn"]
    for name in ("best", None):
        with pytest.raises(ValueError, match=rf"attention='?{name}'?: allowed are 'auto', 'torch'"):
            attention_of(name)
    with pytest.raises(ValueError, match="needs the package flash_attn_interface"):
        attention_of("flash_attn_3")


def test_auto_on_a_cpu_is_torch():
    assert choose_attention(None, **ON_A_CPU) is TORCH


def test_what_is_wanted_is_taken_or_refused():
    assert choose_attention(WRONG, **ON_A_CPU) is WRONG
    with pytest.raises(
        ValueError, match=r"attention='bounded' needs head_dim 64 in bfloat16 on a CUDA device, this is head_dim 64"
    ):
        choose_attention(BOUNDED, **ON_A_CPU)
    on_a_gpu = {**ON_A_CPU, "device": torch.device("cuda"), "dtype": torch.bfloat16}
    assert choose_attention(BOUNDED, **on_a_gpu) is BOUNDED
    with pytest.raises(ValueError, match=r"this checkpoint's query and key norms allow 2\^101"):
        choose_attention(BOUNDED, **{**on_a_gpu, "bound": 101.0})


def test_the_fastest_is_taken():
    other = Attention("other", lambda qkv: torch_sdpa(qkv) * 1.0)
    assert first_of(TORCH, other, fast=[other]) is other
    assert first_of(TORCH, other, fast=[TORCH]) is TORCH


def test_a_backend_that_is_wrong_or_does_not_run_is_never_taken():
    """What is faster but off by more than rounding."""
    broken = [WRONG, Attention("nothing", lambda qkv: torch_sdpa(qkv) * math.nan), Attention("fails", fail)]
    assert first_of(TORCH, *broken, fast=broken) is TORCH
    assert first_of(*broken, fast=broken) is TORCH


@pytest.mark.gpu
def test_auto_takes_a_backend_that_is_right():
    arguments = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16, "head_dim": 64}
    assert choose_attention(None, bound=12.0, **arguments).name in BACKENDS
    assert choose_attention(None, bound=101.0, **arguments).name != "bounded"
    with pytest.raises(ValueError, match=r"this checkpoint's query and key norms allow 2\^101"):
        choose_attention(BOUNDED, bound=101.0, **arguments)
