"""Which attention is taken: what is wanted, what a precision prefers, or the fastest that is right."""

import math
import subprocess

import pytest
import torch

from kandinsky.model import attention_choice
from kandinsky.model.attention import BACKENDS, BOUNDED, FLOAT8, TORCH, Attention, torch_sdpa
from kandinsky.model.attention_choice import choose_attention, fastest, prepare, trials, unasked
from kandinsky.model.bounded import ANY, Logits

ON_A_CPU = {"device": torch.device("cpu"), "dtype": torch.float32, "head_dim": 64, "logits": Logits(12.0, 1.5)}
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


def test_auto_on_a_cpu_is_torch():
    assert choose_attention(None, **ON_A_CPU) is TORCH


def test_what_is_wanted_is_taken():
    assert choose_attention(WRONG, **ON_A_CPU) is WRONG
    assert choose_attention(BOUNDED, **ON_A_CPU) is BOUNDED
    assert choose_attention(BOUNDED, **{**ON_A_CPU, "logits": ANY}) is BOUNDED


def test_the_callable_for_large_logits_is_checked_where_it_is_needed():
    half = Attention(
        "half", WRONG.attend, fit=lambda logits: (torch_sdpa if logits.bound <= 100 else WRONG.attend, None)
    )
    places = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 173, "measure": lambda *_: 1.0}
    small, large = half.for_logits(Logits(100.0, 1.0)), half.for_logits(Logits(101.0, 1.0))
    assert fastest([small], **places) is small
    assert fastest([large, TORCH], **places) is TORCH
    assert small.label == "half" != large.label


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
    on_a_gpu = {**ON_A_CPU, "device": torch.device("cuda"), "dtype": torch.bfloat16, "logits": ANY}
    assert choose_attention(None, pick=lambda found: asked.append(found) or found[1], **on_a_gpu).name == "cudnn"
    assert [backend.name for backend in asked[0]] == ["torch", "cudnn"]


def test_a_candidate_that_found_no_memory_may_run_another_time():
    def full(_qkv):
        raise torch.OutOfMemoryError("CUDA out of memory")

    settings = {"device": torch.device("cpu"), "head_dim": 64, "tokens": 33, "measure": lambda *_: 1.0}
    first, second = trials([Attention("full", full), WRONG], **settings)
    assert (first.passing, second.passing) == (True, False)


@pytest.mark.gpu
def test_auto_takes_a_backend_that_is_right():
    arguments = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16, "head_dim": 64}
    assert choose_attention(None, logits=Logits(12.0, 1.5), **arguments).name in BACKENDS
    assert choose_attention(None, logits=ANY, **arguments).name in BACKENDS
    assert choose_attention(None, logits=Logits(12.0, 1.5), **{**arguments, "head_dim": 32}).name != "bounded"


ROUGH = Attention("rough", lambda qkv: torch_sdpa(qkv) * 1.04, max_error=0.06)
PLACE = {"device": torch.device("cpu"), "dtype": torch.float32, "head_dim": 64, "logits": Logits(12.0, 1.5)}
TRIED = {**PLACE, "tokens": 173}


def test_what_a_precision_prefers_is_taken_if_it_is_right_enough():
    assert unasked(None, **TRIED) is None
    assert unasked(ROUGH, **TRIED) is ROUGH
    assert unasked(Attention("rough", lambda qkv: torch_sdpa(qkv) * 1.07, max_error=0.06), **TRIED) is None
    assert unasked(Attention("fails", fail, max_error=0.06), **TRIED) is None


def test_what_a_precision_prefers_is_not_tried_where_it_cannot_run(monkeypatch):
    monkeypatch.setattr(attention_choice, "trials", fail)
    assert unasked(FLOAT8, **PLACE) is None


def test_both_forms_of_what_is_preferred_are_tried():
    """Blocks with small and with large logits take different ones."""
    taken = []

    def fit(logits):
        return lambda qkv: taken.append(logits.bound) or torch_sdpa(qkv), None

    backend = Attention("two", fail, fit=fit)
    assert unasked(backend, **TRIED) is backend
    assert set(taken) == {12.0, 0.0}


def test_the_kernel_that_will_be_taken_is_made_ready(monkeypatch):
    ready = []
    monkeypatch.setattr("kandinsky.model.bounded.prepare", lambda _device: ready.append("bounded"))
    monkeypatch.setattr("kandinsky.model.float8_attention.prepare", lambda _device: ready.append("float8"))
    place = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16}
    for capability in ((9, 0), (8, 9)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device, found=capability: found)
        for wanted in (None, BOUNDED, FLOAT8, TORCH):
            prepare(wanted, **place)
    prepare(FLOAT8, device=torch.device("cpu"), dtype=torch.float32)
    assert ready == ["bounded", "bounded", "float8", "bounded", "bounded", "bounded"]
