"""Timing on the clock of a CPU."""

import time

import pytest
import torch
from benchmark_helpers import all_positive

CPU = torch.device("cpu")


def test_a_time_is_a_median_after_a_warm_up(script, monkeypatch):
    module, takes, now = script("measure"), iter((300, 1, 2, 4)), [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def run():
        now[0] += next(takes)

    timing = module.measure(run, device=CPU, repeats=3, warm_up=1, tflop=4)
    assert (timing.median, timing.spread, timing.tflops) == (2000, 3000, 2)
    assert str(timing).split() == ["2000.000", "ms", "+-1500.000", "2", "TFLOP/s"]


def test_a_cpu_tells_no_peak(script):
    module = script("measure")
    assert module.peak_gib(lambda: pytest.fail("nothing would be learnt"), CPU) is None
    assert module.gib(None) == "not counted"
    assert module.gib(1.5) == "1.50 GiB"


def test_ceilings(script):
    module = script("measure")
    gemm = module.gemm_ceiling(8, 16, 32, CPU)
    assert gemm.tflop == pytest.approx(2 * 8 * (4 * 16 * 16 + 2 * 16 * 32) / 1e12)
    assert all_positive(gemm.median, gemm.tflops)


def test_backends_that_do_not_run_are_said_and_left_out(script, capsys):
    table = script("measure").attention_table(40, 2, CPU)
    assert list(table) == ["torch"]
    timing, error = table["torch"]
    assert timing.median > 0
    assert 0.001 < error < 0.01  # bfloat16's
    assert "attention bounded: does not run here" in capsys.readouterr().out


def test_a_profile_has_the_operators_that_ran(script):
    x = torch.randn(64, 64)
    found = script("measure").kernels(lambda: x @ x @ x, CPU)
    product = next(kernel for kernel in found if kernel.name == "aten::mm")
    assert product.calls == 2
    assert product.milliseconds > 0
    assert [kernel.milliseconds for kernel in found] == sorted((k.milliseconds for k in found), reverse=True)
