"""One process of the benchmark of several, at tiny size, and its table."""

import json

import pytest
import torch
from benchmark_helpers import all_positive
from helpers import ROOT

from kandinsky.checkpoint.random_weights import SIZES, random_dit
from kandinsky.loading.components import load_dit

CPU = torch.device("cpu")


def row(gpus, mode, request, **others):
    figures = {"step": request / 4, "decode": 0.5, "request": request, "difference": 0.0, "precision": "exact"}
    return {"gpus": gpus, "mode": mode, **figures, **({"attentions": {}} if gpus == 1 else {}), **others}


def test_one_process(script, tmp_path):
    rank = script("parallel_rank")
    rank.work(tmp_path, CPU, size="tiny", modes=["tensor"], precisions=["exact"], seconds=1)
    found = json.loads((tmp_path / rank.LOG).read_text())
    assert (found["gpus"], found["mode"], found["precision"], found["difference"]) == (1, "none", "exact", 0.0)
    assert all_positive(found["step"], found["decode"], found["request"], found["timings"])
    assert script("parallel").table([found]).count("(1.00x)") == 3


def test_the_table_tells_speed_ups_and_what_messages_cost(script):
    rows = [row(1, "none", 4.0), row(2, "tensor", 2.5, step_silent=0.5, peak_gib=[1.0, 2.0])]
    line = script("parallel").table(rows).splitlines()[3]
    assert "2,500 ms (1.60x)" in line
    assert "20.0%" in line
    assert "1.0, 2.0" in line


def test_without_one_gpu_nothing_is_compared_with_it(script, tmp_path):
    assert script("parallel_rank").compare(torch.ones(2), tmp_path / "exact.pt", alone=False) is None
    line = script("parallel").table([row(2, "tensor", 2.5, difference=None)]).splitlines()[2]
    assert "x)" not in line
    assert "0.0000" not in line


def test_latents_are_compared_with_those_of_one_gpu(script, tmp_path):
    compare = script("parallel_rank").compare
    assert compare(torch.full((4,), 2.0), tmp_path / "exact.pt", alone=True) == 0
    assert compare(torch.full((4,), 3.0), tmp_path / "exact.pt", alone=False) == pytest.approx(0.5)


def test_weights_in_memory_are_loaded_as_from_a_file(script):
    state = random_dit(SIZES["tiny"].dit, torch.Generator().manual_seed(0)).state_dict()
    checkpoint = script("parallel_rank").InMemory(state)
    loaded = load_dit(checkpoint, device=CPU, dtype=torch.float32).state_dict()
    assert all(torch.equal(value.float(), loaded[name]) for name, value in state.items())


@pytest.mark.slow
def test_two_processes_in_both_modes(run):
    found = run("parallel", "--seconds", "1")
    assert [(each["gpus"], each["mode"]) for each in found["rows"]] == [(1, "none"), (2, "tensor"), (2, "sequence")]
    for each in found["rows"][1:]:
        assert all_positive(each["step"], each["step_silent"], each["decode"], each["request"])
        assert each["difference"] < 1e-5


def test_the_figures_in_the_docs_have_the_form_that_is_written_now(script):
    """And the page has their table."""
    rows = json.loads((ROOT / "docs" / "parallel.json").read_text())["rows"]
    page = (ROOT / "docs" / "benchmarks.md").read_text().replace("**", "")
    lines = script("parallel").table(rows).splitlines()
    assert len(lines) == 2 + len(rows) + 4  # two about attention, each after an empty line
    for line in lines[2 : 2 + len(rows)]:
        _, gpus, mode, precision, step, _, decode, *_ = (cell.strip() for cell in line.split("|"))
        start = f"| {gpus} | {mode.replace('none', '')} | {precision} |".replace("|  |", "| |")
        (told,) = (each for each in page.splitlines() if each.startswith(start))
        for time in (step, decode):
            assert f"| {time.split(' (')[0]}" in told
