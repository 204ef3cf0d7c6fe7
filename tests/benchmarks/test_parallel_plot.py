"""The lines of the plot; drawing them needs matplotlib."""


def row(gpus, mode, precision, request):
    return {"gpus": gpus, "mode": mode, "precision": precision, "request": request}


def test_speed_ups_of_what_was_measured(script):
    rows = [row(4, "tensor", "exact", 2.0), row(1, "none", "exact", 6.0), row(2, "tensor", "exact", 4.0)]
    rows += [row(2, "sequence", "exact", 3.0)]
    assert script("parallel_plot").speedups(rows) == {
        ("tensor", "exact"): [(1, 1.0), (2, 1.5), (4, 3.0)],
        ("sequence", "exact"): [(1, 1.0), (2, 2.0)],
    }


def test_what_one_gpu_was_not_measured_in_has_no_line(script):
    assert script("parallel_plot").speedups([row(2, "tensor", "fast", 1.0)]) == {}
