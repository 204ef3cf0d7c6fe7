"""Memory of extensions, by their length."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    rows = run("extend_memory")["rows"]
    assert [row["seconds"] for row in rows] == [1, 2]
    assert [row["frames"] for row in rows] == [9 + 8, 17 + 16]
    assert all_positive(*(row["host_gib"] for row in rows))
