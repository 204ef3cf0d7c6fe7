"""ffmpeg's filter measured at tiny size."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    found = run("minterpolate")
    assert set(found["settings"]["drawn"]) == {"me=epzs", "me=hexbs"}
    assert set(found["segments"]["drawn"]) == {"one run", "2 gaps, 1 before"}
    assert all_positive(found["settings"], found["at_once"])
    assert found["segments"]["drawn"]["one run"]["differ"] == 0
    assert found["segments"]["drawn"]["one run"]["psnr"] == found["settings"]["drawn"]["me=epzs"]["psnr"]


def test_parts(run):
    assert set(run("minterpolate", "--only", "cores")) & {"settings", "segments", "at_once"} == {"at_once"}
