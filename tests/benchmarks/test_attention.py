"""Attention by norms at tiny size; what needs a GPU is left out there."""

from benchmark_helpers import all_positive


def test_figures(run):
    found = run("attention")
    assert set(found["backends"]) == set(found["float8"]) >= {"1", "2", "4", "8", "1, one channel 6"}
    assert all_positive(found["backends"], found["step_ms"])
    assert set(found["step_ms"]) == {"1", "2", "4"}
    assert "fast" not in found
    forms = [found["float8"][norms] for norms in ("1", "2", "8", "0.53, 16 channels 1.30")]
    assert forms == ["torch.float8_e4m3fn", "torch.float16", "exact", "torch.float8_e4m3fn"]
