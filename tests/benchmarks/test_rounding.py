"""What rounding costs a tiny DiT."""

from benchmark_helpers import all_positive


def test_figures(run):
    found = run("rounding")
    assert found["seeds"] == 1
    assert set(found["rows"]) == {
        "another attention backend",
        "as sent",
        "own half in float32",
        "both halves in float32",
    }
    assert all_positive(found["rows"]["as sent"], found["limit"])
    assert found["rows"]["as sent"] < found["limit"]
