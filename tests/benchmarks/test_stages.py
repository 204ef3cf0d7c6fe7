"""Every stage at tiny size; what needs a GPU is left out there."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    found = run("stages", "--kernels")
    keys = ("gemm_ms", "attention", "step_limit_ms", "t5_ms", "step_ms", "vae_ms", "request_s", "block_error")
    assert all_positive(*(found[key] for key in keys))
    assert set(found["request_s"]) == {"text", "sample", "decode", "write", "total"}
    assert {"linears", "attention", "element-wise"} <= set(found["profile_ms"])
    assert set(found["block_error"]) == {"plain"}
    assert "step_fast_ms" not in found


def test_work_of_a_step(script):
    stages = script("stages")
    config = stages.SIZES["full"].dit
    linears, attention = stages.step_tflop(config, 25_424)
    assert (round(linears), round(attention)) == (242, 334)
