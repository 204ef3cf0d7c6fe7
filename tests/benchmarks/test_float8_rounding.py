"""What each rounding of 8-bit attention costs, on few keys."""


def test_figures(run):
    found = run("float8_rounding")
    rows = {(str(row["input"]), str(row["rounding"])): row["error"] for row in found["rows"]}
    assert len(rows) == len(found["rows"]) == 6 * 19
    errors = [row["error"] for row in found["rows"][:19]]
    assert 0 < errors[0] < errors[1] < 0.1  # bfloat16, e4m3
