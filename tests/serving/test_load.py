"""The load test in short; `benchmarks/serving.py` has it in full."""

import json
import subprocess
import sys

import pytest
from helpers import ROOT


def run(*arguments):
    command = [sys.executable, str(ROOT / "benchmarks" / "serving.py"), *arguments]
    output = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout
    return json.loads(output.splitlines()[-1])


@pytest.mark.slow
def test_no_job_is_lost_or_doubled_under_load():
    found = run("--clients", "50", "--seconds", "8", "--jobs", "1000")
    assert (found["lost"], found["doubled"], found["exit_code"]) == (0, 0, 0)
    assert found["jobs"] > 50
    assert found["database_bytes_a_job"] <= 2048
    assert found["memory_mib"]["end"] <= found["memory_mib"]["half"] + 10


@pytest.mark.slow
def test_workers_of_a_cluster_hardly_wait():
    found = run("--simulate", "--jobs", "20000")
    assert found["waiting_share"] <= 0.01
    alone = run("--simulate", "--jobs", "20000", "--message-ms", "60")
    assert alone["waiting_share"] > 0.1  # a dispatcher that is too slow is seen
