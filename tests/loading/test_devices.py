"""Where modules run, and in what."""

import pytest
import torch

from kandinsky.loading.devices import available, check_dtype, check_precision, default_dtype, device_of, devices_of
from kandinsky.model.precision import EXACT, FAST

CPU = torch.device("cpu")


def test_one_device_for_all():
    assert devices_of("cpu") == devices_of(CPU) == {"dit": CPU, "vae": CPU, "text_embedder": CPU}
    assert "cpu" in available()


def test_defaults():
    assert default_dtype(CPU) == torch.float32
    assert default_dtype(torch.device("cuda", 0)) == torch.bfloat16


def test_a_precision_says_what_it_needs():
    check_precision(EXACT, CPU, None)
    with pytest.raises(ValueError, match=r"precision='fast' needs a CUDA device of compute capability 8\.9 or newer"):
        check_precision(FAST, CPU, None)


def test_a_dtype_of_another_kind():
    check_dtype(None)
    with pytest.raises(ValueError, match=r"dtype=torch\.float16: allowed are None, torch\.float32, torch\.bfloat16"):
        check_dtype(torch.float16)


@pytest.mark.skipif(torch.cuda.is_available(), reason="asks for a machine without a GPU")
def test_a_launchers_local_rank_is_named(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "3")
    with pytest.raises(ValueError, match=r"device='cuda' \(number 3, for this process's local rank\) does not exist"):
        device_of("cuda", "device")
    with pytest.raises(ValueError, match="device='cuda' does not exist"):
        device_of("cuda", "device", distributed=False)
