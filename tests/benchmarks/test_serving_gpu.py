"""The server against the batch, at tiny size."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    """Four processes load weights one after the other."""
    found = run("serving_gpu", "--count", "2")
    assert found["equal_files"] == 2
    assert all_positive(found["videos_an_hour"], found["step_seconds"], found["cancel_to_next_job_seconds"])
