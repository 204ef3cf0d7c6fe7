"""One batch against single calls, at tiny size."""

import pytest
from benchmark_helpers import all_positive


def test_figures(run):
    found = run("batch", "--count", "1")
    assert (found["count"], found["seconds"]) == (1, 1)
    assert all_positive(found["single_s"], found["batch_s"], found["limit_s"])
    assert found["limit_s"] < found["single_s"]


@pytest.mark.slow
def test_a_process_for_each_video(run):
    found = run("batch", "--count", "1", "--process")
    assert found["process_s"] > found["single_s"]
