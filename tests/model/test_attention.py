"""Attention backends against a float64 oracle, and which one is taken."""

import math
import re

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
    check_device,
    check_head_dim,
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


def test_what_is_wanted_is_taken():
    assert choose_attention(WRONG, **ON_A_CPU) is WRONG
    assert choose_attention(BOUNDED, **ON_A_CPU) is BOUNDED
    with pytest.raises(ValueError, match=r"this checkpoint's query and key norms allow 2\^101"):
        choose_attention(BOUNDED, **{**ON_A_CPU, "bound": 101.0})


GPU = torch.device("cuda", 0)
ELSEWHERE = (
    (torch.device("cpu"), torch.bfloat16, (8, 0), "this is torch.bfloat16 on cpu"),
    (torch.device("mps"), torch.bfloat16, (8, 0), "this is torch.bfloat16 on mps"),
    (GPU, torch.float32, (8, 0), "this is torch.float32 on cuda:0, which has 8.0"),
    (GPU, torch.bfloat16, (7, 5), "this is torch.bfloat16 on cuda:0, which has 7.5"),
)


@pytest.mark.parametrize(("device", "dtype", "capability", "message"), ELSEWHERE)
@pytest.mark.parametrize("name", sorted(BACKENDS.keys() - {"torch"}))
def test_one_for_gpus_is_refused_elsewhere(name, device, dtype, capability, message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        check_device(BACKENDS[name], device=device, dtype=dtype)
    assert f"attention='{name}' needs bfloat16 on a CUDA device of compute capability 8.0" in str(caught.value)


@pytest.mark.parametrize(("device", "dtype", "capability", "_message"), ELSEWHERE)
def test_torch_and_auto_run_everywhere(device, dtype, capability, _message, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    for wanted in (TORCH, None):
        assert check_device(wanted, device=device, dtype=dtype) is None  # it raises nothing


def test_all_run_on_a_gpu_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (8, 0))
    for backend in BACKENDS.values():
        assert check_device(backend, device=GPU, dtype=torch.bfloat16) is None


def test_sizes_of_heads():
    taken = {"torch": (20, 64, 512), "cudnn": (64, 128), "bounded": (64,), "flash_attn_2": (64, 256)}
    refused = {"torch": (), "cudnn": (20, 136), "bounded": (32, 128), "flash_attn_2": (20, 264)}
    for name, sizes in taken.items():
        for size in sizes:
            check_head_dim(BACKENDS[name], size)
            check_head_dim(None, size)
        for size in refused[name]:
            with pytest.raises(ValueError, match=f"attention='{name}' takes no heads of {size} channels"):
                check_head_dim(BACKENDS[name], size)


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
    assert choose_attention(None, bound=12.0, **{**arguments, "head_dim": 32}).name != "bounded"


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["torch", "cudnn", "bounded"])
def test_what_is_let_pass_runs(name):
    backend, device = BACKENDS[name], torch.device("cuda", 0)
    check_device(backend, device=device, dtype=torch.bfloat16)
    for head_dim in (8, 64, 128):
        if backend.head_dims is None or head_dim in backend.head_dims:
            qkv = torch.randn(33, 3, 2, head_dim, device=device)
            scaled = qkv.clone()
            scaled[:, 0] *= backend.query_scale(head_dim)
            assert relative_error(backend.attend(scaled.bfloat16()), oracle(qkv)) < 1e-2
