"""Attention by norms at tiny size; what needs a GPU is left out there."""

from benchmark_helpers import all_positive


def test_figures(run):
    found = run("attention")
    assert set(found["backends"]) == {"1", "2", "4", "8", "1, one channel 30"}
    assert all_positive(found["backends"], found["step_ms"])
    assert set(found["step_ms"]) >= {"1", "2", "4", "1 but one block of 8"}
    assert "fast" not in found
