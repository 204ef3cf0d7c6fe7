"""PyTorch's state as it was, and not as the caller has it, meanwhile."""

import threading

import pytest
import torch
from helpers import LONG

from kandinsky.model import isolation
from kandinsky.model.isolation import isolated

PRECISIONS = {
    "all": torch.backends,
    "cuda": torch.backends.cudnn,
    "cuda matmul": torch.backends.cuda.matmul,
    "cuda conv": torch.backends.cudnn.conv,
    "mkldnn": torch.backends.mkldnn,
    "mkldnn matmul": torch.backends.mkldnn.matmul,
    "mkldnn conv": torch.backends.mkldnn.conv,
}


def precisions() -> dict[str, str]:
    return {name: owner.fp32_precision for name, owner in PRECISIONS.items()}


DEFAULT = dict.fromkeys(PRECISIONS, "none") | {"cuda conv": "tf32"}


@pytest.fixture(autouse=True)
def default_switches():
    """Every test begins and leaves with PyTorch's defaults."""
    to_defaults()
    yield
    to_defaults()


def to_defaults() -> None:
    torch.set_default_dtype(torch.float32)
    torch.set_deterministic_debug_mode(0)
    torch.set_float32_matmul_precision("highest")
    for owner in PRECISIONS.values():
        owner.fp32_precision = "none"
    torch.backends.cudnn.allow_tf32 = True  # after which old names and new ones agree again
    assert precisions() == DEFAULT


def test_nothing_is_touched_where_nothing_differs(monkeypatch):
    for name in ("set_default_dtype", "set_deterministic_debug_mode"):
        monkeypatch.setattr(torch, name, None)
    monkeypatch.setattr(torch._C, "_set_fp32_precision_setter", None)
    before = torch.backends.cudnn.benchmark
    with isolated():
        assert precisions() == DEFAULT
    assert (precisions(), torch.backends.cudnn.benchmark) == (DEFAULT, before)


@pytest.mark.parametrize("name", PRECISIONS)
@pytest.mark.parametrize("value", ["tf32", "ieee"])
def test_a_precision_of_float32_that_was_set_by_its_own_name(name, value):
    PRECISIONS[name].fp32_precision = value
    before = precisions()
    with isolated():
        inside = precisions()
    assert precisions() == before
    rounding = {key: was if was != "ieee" else "none" for key, was in inside.items()}  # both are not rounded
    assert rounding == DEFAULT
    PRECISIONS[name].fp32_precision = DEFAULT[name]
    assert precisions() == DEFAULT  # what had no value of its own still has none


def test_old_and_new_names_of_precision_mixed():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    with pytest.raises(RuntimeError):  # which is why the old one is not asked
        torch.get_float32_matmul_precision()
    with isolated():
        assert precisions() == DEFAULT
    assert torch.backends.cuda.matmul.fp32_precision == "tf32"


@pytest.mark.parametrize("name", ["high", "medium"])
def test_precision_that_was_set_by_the_old_name(name):
    torch.set_float32_matmul_precision(name)
    with isolated():
        assert precisions() == DEFAULT
    assert torch.get_float32_matmul_precision() == name


@pytest.mark.parametrize("warn_only", [False, True])
def test_deterministic_algorithms_are_put_back_as_they_were(warn_only):
    torch.use_deterministic_algorithms(True, warn_only=warn_only)
    with isolated():
        assert not torch.are_deterministic_algorithms_enabled()
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warn_only


@pytest.mark.parametrize("setting", [True, False, (False, False)])
def test_sums_in_16_bits_are_put_back_as_they_were(setting):
    matmul, name = torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"
    setattr(matmul, name, setting)
    try:
        before = getattr(matmul, name), getattr(matmul, f"{name}_split_k", True)
        with isolated():
            assert (getattr(matmul, name), getattr(matmul, f"{name}_split_k", True)) == (True, True)
        assert (getattr(matmul, name), getattr(matmul, f"{name}_split_k", True)) == before
    finally:
        setattr(matmul, name, True)


def test_a_switch_that_cannot_be_read_leaves_it_as_it_was_before(monkeypatch):
    """What was set by then is put back, and the next user is isolated all the same."""
    torch.set_default_dtype(torch.float64)
    _read, write, wanted = isolation._OF_THE_PROCESS[-1]

    def broken():
        raise RuntimeError("cannot be read")

    with monkeypatch.context() as patch:
        patch.setattr(isolation, "_OF_THE_PROCESS", (*isolation._OF_THE_PROCESS[:-1], (broken, write, wanted)))
        for _ in range(2):
            with pytest.raises(RuntimeError, match="cannot be read"), isolated():
                pass
            assert torch.get_default_dtype() == torch.float64
    with isolated():
        assert torch.get_default_dtype() == torch.float32
    assert torch.get_default_dtype() == torch.float64


def test_contexts_of_this_thread_are_left_outside():
    with torch.autocast("cpu", torch.bfloat16), torch.device("meta"), isolated():
        product = torch.ones(2, 2) @ torch.ones(2, 2)
    assert (product.device.type, product.dtype) == ("cpu", torch.float32)


def test_the_last_of_several_threads_puts_switches_back():
    torch.set_default_dtype(torch.float64)
    inside, leave, seen = threading.Event(), threading.Event(), []

    def other():
        with isolated():
            inside.set()
            leave.wait(LONG)
            seen.append(torch.get_default_dtype())

    thread = threading.Thread(target=other)
    try:
        thread.start()
        assert inside.wait(LONG)
        with isolated():
            pass
        assert torch.get_default_dtype() == torch.float32  # the other one still needs it
        leave.set()
        thread.join()
        assert torch.get_default_dtype() == torch.float64
    finally:
        leave.set()
        torch.set_default_dtype(torch.float32)
    assert seen == [torch.float32]


def test_it_is_a_decorator_that_can_be_called_again():
    @isolated()
    def dtype():
        return torch.ones(1).dtype

    torch.set_default_dtype(torch.float64)
    try:
        assert [dtype(), dtype()] == [torch.float32, torch.float32]
    finally:
        torch.set_default_dtype(torch.float32)


def set_by_old_names():
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.allow_tf32 = False


def set_by_new_names():
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    torch.backends.cudnn.conv.fp32_precision = "ieee"


def set_for_all():
    torch.backends.fp32_precision = "tf32"


@pytest.mark.gpu
@pytest.mark.parametrize("setting", [set_by_old_names, set_by_new_names, set_for_all])
def test_results_on_a_gpu_do_not_depend_on_precisions_outside(setting):
    """Kernels ask for these switches too, and must not find an old and a new name in contradiction."""
    generator = torch.Generator("cuda").manual_seed(0)
    image = torch.randn(1, 16, 64, 64, device="cuda", generator=generator)
    kernel = torch.randn(16, 16, 3, 3, device="cuda", generator=generator)

    def results():
        return torch.nn.functional.conv2d(image, kernel), image[0, 0] @ image[0, 1]

    expected = results()
    setting()
    assert not torch.equal(results()[1], expected[1])  # else the rest says nothing
    with isolated():
        inside = results()
    assert all(torch.equal(a, b) for a, b in zip(inside, expected, strict=True))
