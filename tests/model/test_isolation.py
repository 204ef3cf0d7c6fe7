"""PyTorch's state as it was, and not as the caller has it, meanwhile."""

import threading

import torch

from kandinsky.model.isolation import isolated


def test_nothing_is_touched_where_nothing_differs():
    before = torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    with isolated():
        assert (torch.get_default_dtype(), torch.get_float32_matmul_precision()) == before[:2]
    assert (torch.get_default_dtype(), torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark) == before


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
            leave.wait(20)
            seen.append(torch.get_default_dtype())

    thread = threading.Thread(target=other)
    try:
        thread.start()
        assert inside.wait(20)
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
