"""Attention backends against a float64 oracle, and which one is taken."""

import math
import re
import subprocess

import pytest
import torch
from helpers import relative_error
from model_helpers import oracle

from kandinsky.model.attention import (
    BACKENDS,
    BOUNDED,
    FLOAT8,
    TORCH,
    Attention,
    attention_of,
    candidates,
    check_device,
    check_head_dim,
    choose_attention,
    fastest,
    torch_sdpa,
    trials,
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
    assert choose_attention(BOUNDED, **{**ON_A_CPU, "bound": 101.0}) is BOUNDED


def test_the_callable_for_large_logits_is_checked_where_it_is_needed():
    half = Attention("half", WRONG.attend, attend_for=lambda bound: torch_sdpa if bound <= 100 else WRONG.attend)
    places = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 173, "measure": lambda *_: 1.0}
    small, large = half.for_logits(100.0), half.for_logits(101.0)
    assert fastest([small], **places) is small
    assert fastest([large, TORCH], **places) is TORCH
    assert small.label == "half" != large.label


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


def test_the_fastest_is_taken():
    other = Attention("other", lambda qkv: torch_sdpa(qkv) * 1.0)
    assert first_of(TORCH, other, fast=[other]) is other
    assert first_of(TORCH, other, fast=[TORCH]) is TORCH


def test_a_backend_that_is_wrong_or_does_not_run_is_never_taken():
    """What is faster but off by more than rounding."""
    broken = [WRONG, Attention("nothing", lambda qkv: torch_sdpa(qkv) * math.nan), Attention("fails", fail)]
    assert first_of(TORCH, *broken, fast=broken) is TORCH
    assert first_of(*broken, fast=broken) is TORCH


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("no kernel image"),
        ImportError("undefined symbol"),
        subprocess.CalledProcessError(1, ["cc"]),
        FileNotFoundError("cc"),
        AttributeError("nvrtcGetCUBIN"),
        type("OutOfResources", (Exception,), {})("shared memory"),  # Triton's own are Exceptions and nothing else
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_whatever_a_candidate_raises_it_is_one_that_does_not_run(failure):
    def broken(_qkv):
        raise failure

    backend = Attention("broken", broken)
    assert first_of(TORCH, backend, fast=[backend]) is TORCH
    settings = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 33, "measure": lambda *_: 1.0}
    (trial,) = trials([backend], **settings)
    assert trial.milliseconds is None
    assert trial.error.startswith(type(failure).__name__)


def test_what_was_tried_is_told():
    settings = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 33, "measure": lambda *_: 1.0}
    right, wrong = trials([TORCH, WRONG], **settings)
    assert (right.backend, right.milliseconds, right.error) == (TORCH, 1.0, None)
    assert wrong.error.startswith("off by 0.01")


def test_who_picks_is_given_what_may_run(monkeypatch):
    monkeypatch.setattr("kandinsky.model.attention.why_not_fused", lambda _device: "it is a test")
    monkeypatch.setattr("kandinsky.model.attention._is_installed", lambda backend: "flash" not in backend.name)
    asked = []
    on_a_gpu = {**ON_A_CPU, "device": torch.device("cuda"), "dtype": torch.bfloat16, "bound": 101.0}
    assert choose_attention(None, pick=lambda found: asked.append(found) or found[1], **on_a_gpu).name == "cudnn"
    assert [backend.name for backend in asked[0]] == ["torch", "cudnn"]


def test_without_triton_only_the_kernel_of_nvrtc_is_left(monkeypatch):
    """`kernels="torch"`: where our own attention would be Triton's, it is not even tried."""
    monkeypatch.setattr("kandinsky.model.attention.why_not_fused", lambda _device: None)
    monkeypatch.setattr("kandinsky.model.attention._is_installed", lambda backend: "flash" not in backend.name)
    on_a_gpu = {**ON_A_CPU, "device": torch.device("cuda", 0), "dtype": torch.bfloat16}
    for compiled, expected in ((None, ["torch", "cudnn"]), ("a kernel", ["torch", "cudnn", "bounded"])):
        monkeypatch.setattr("kandinsky.model.hopper.kernel", lambda _index, compiled=compiled: compiled)
        assert [backend.name for backend in candidates(**on_a_gpu, triton=False)] == expected
        assert [backend.name for backend in candidates(**on_a_gpu)] == ["torch", "cudnn", "bounded"]
        large = candidates(**{**on_a_gpu, "bound": 1000.0})
        assert [backend.label for backend in large] == ["torch", "cudnn", "bounded:attend_any"]


def test_a_candidate_that_found_no_memory_may_run_another_time():
    def full(_qkv):
        raise torch.OutOfMemoryError("CUDA out of memory")

    settings = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 33, "measure": lambda *_: 1.0}
    first, second = trials([Attention("full", full), WRONG], **settings)
    assert (first.passing, second.passing) == (True, False)


@pytest.mark.gpu
def test_auto_takes_a_backend_that_is_right():
    arguments = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16, "head_dim": 64}
    assert choose_attention(None, bound=12.0, **arguments).name in BACKENDS
    assert choose_attention(None, bound=500.0, **arguments).name in BACKENDS
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
