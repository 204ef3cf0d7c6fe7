"""The load test in short, and the arithmetic of the queue."""

import pytest
from benchmark_helpers import all_positive
from helpers import LONG


@pytest.mark.slow
def test_no_job_is_lost_or_doubled_under_load(run):
    found = run("serving", "--clients", "50", "--seconds", str(LONG), "--jobs", "400", "--workers", "16")
    assert (found["jobs"], found["lost"], found["doubled"], found["exit_code"]) == (400, 0, 0, 0)
    assert found["database_bytes_a_job"] <= 2048
    assert found["memory_mib"]["end"] <= found["memory_mib"]["half"] + 10


@pytest.mark.slow
def test_a_few_jobs(run):
    found = run("serving")
    assert (found["jobs"], found["lost"], found["doubled"], found["exit_code"]) == (20, 0, 0, 0)
    assert all_positive(found["post_ms"], found["cpu_ms_a_job"])


def test_workers_of_a_cluster_hardly_wait(run):
    found = run("serving", "--simulate", "--jobs", "20000", "--workers", "100")
    assert found["waiting_share"] <= 0.01
    alone = run("serving", "--simulate", "--jobs", "20000", "--workers", "100", "--message-ms", "60")
    assert alone["waiting_share"] > 0.1  # a dispatcher that is too slow is seen
