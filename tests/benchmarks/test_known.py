"""Calls that are given pictures and videos."""

import pytest
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    found = run("known", "--repeats", "1")
    rows = found["modes"]["resident"]
    assert rows["bit_equal"] is True
    assert [row["frames"] for row in rows["encoding"]] == [1, 9, 25]
    cases = {"text", "image", "extend", "last_image", "both", "strength 0.5", "a second more"}
    assert set(rows) == {"bit_equal", "encoding"} | cases
    assert all_positive(*(rows[name]["s"] for name in ("text", "image", "extend", "strength 0.5")))
    assert "given" in rows["image"]["stages_s"]
    assert "given" not in rows["text"]["stages_s"]
