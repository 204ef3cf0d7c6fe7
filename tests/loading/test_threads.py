"""What threads need that load beside each other."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from kandinsky.loading.threads import SWITCH_SECONDS, current_gpu, switching_often


def test_turns_are_as_before_afterwards():
    before = sys.getswitchinterval()
    with pytest.raises(KeyError), switching_often():
        assert sys.getswitchinterval() == pytest.approx(SWITCH_SECONDS)
        raise KeyError
    assert sys.getswitchinterval() == before


def test_a_cpu_is_nobodys_current_gpu():
    with current_gpu(torch.device("cpu")):
        assert torch.zeros(1).device.type == "cpu"


@pytest.mark.gpu
def test_a_thread_has_the_gpu_that_it_is_told():
    last = torch.device("cuda", torch.cuda.device_count() - 1)

    def current() -> int:
        with current_gpu(last):
            return torch.cuda.current_device()

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(current).result() == last.index
