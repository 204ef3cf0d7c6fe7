"""Attention backends against a float64 oracle, and which ones may run where."""

import re

import pytest
import torch
from helpers import relative_error
from model_helpers import oracle

from kandinsky.model.attention import (
    BACKENDS,
    BOUNDED,
    FLOAT8,
    TORCH,
    attention_of,
    candidates,
    check_device,
    check_head_dim,
    runs,
)
from kandinsky.model.bounded import Logits

ON_A_CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "head_dim": 64, "logits": Logits(12.0, 1.5)}


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
        if backend is not FLOAT8:
            assert check_device(backend, device=GPU, dtype=torch.bfloat16) is None


@pytest.mark.parametrize("capability", [(8, 0), (8, 9), (10, 0)])
def test_one_for_hopper_is_refused_on_other_gpus(capability, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    with pytest.raises(ValueError, match=r"'float8' runs on Hopper GPUs alone \(compute capability 9.0\), cuda:0 has"):
        check_device(FLOAT8, device=GPU, dtype=torch.bfloat16)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: (9, 0))
    assert check_device(FLOAT8, device=GPU, dtype=torch.bfloat16) is None


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


def test_without_triton_only_the_kernel_of_nvrtc_is_left(monkeypatch):
    """`kernels="torch"`: where our own attention would be Triton's, it is not even tried."""
    monkeypatch.setattr("kandinsky.model.attention.why_not_fused", lambda _device: None)
    monkeypatch.setattr("kandinsky.model.attention._is_installed", lambda backend: "flash" not in backend.name)
    on_a_gpu = {**ON_A_CPU, "device": torch.device("cuda", 0), "dtype": torch.bfloat16}
    for compiled, expected in ((None, ["torch", "cudnn"]), ("a kernel", ["torch", "cudnn", "bounded"])):
        monkeypatch.setattr("kandinsky.model.hopper.kernel", lambda _index, compiled=compiled: compiled)
        assert [backend.name for backend in candidates(**on_a_gpu, triton=False)] == expected
        assert [backend.name for backend in candidates(**on_a_gpu)] == ["torch", "cudnn", "bounded"]
        large = candidates(**{**on_a_gpu, "logits": Logits(1000.0, 100.0)})
        assert [backend.label for backend in large] == ["torch", "cudnn", "bounded:attend_any"]


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


def test_where_it_may_run_without_trying(monkeypatch):
    monkeypatch.setattr("kandinsky.model.attention._is_installed", lambda backend: "flash" not in backend.name)
    place = {"device": GPU, "dtype": torch.bfloat16, "head_dim": 64}
    for capability, expected in (((9, 0), True), ((8, 9), False), ((10, 0), False)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, found=capability: found)
        assert runs(FLOAT8, **place) is expected
        assert runs(BOUNDED, **place)
        assert not runs(BOUNDED, **{**place, "head_dim": 32})
        assert not runs(BACKENDS["flash_attn_3"], **place)
    assert not runs(FLOAT8, **{**place, "device": torch.device("cpu")})


def test_what_is_lossy_is_no_candidate():
    assert [backend.name for backend in BACKENDS.values() if backend.lossy] == ["float8"]
