"""Rows of memory modes at tiny size, and what is said of them."""

import json
import os

import pytest
import torch
from benchmark_helpers import all_positive

CPU = torch.device("cpu")
RESIDENT = "resident, no limit"


@pytest.fixture
def memory(script):
    return script("memory")


def report(latents, size="96x64 1 s"):
    """As `measure_row` gives it."""
    stages = {"text": 0.1, "sample": 1.0, "decode": 0.5, "total": 1.7}
    return {
        "sizes": {size: {"seconds": stages, "peak_gb": {"text": 1.0, "sample": 2.0}, "latents": latents}},
        "reserved_gb": 2.5,
        "load_s": 3.0,
        "host_gb": {"own": 1.0, "all": 2.0},
    }


def test_a_row_in_its_own_process(memory, small_weights):
    rows = {"row": {"name": RESIDENT, "memory": "resident", "precision": "exact", "limit": None, "saving": False}}
    found = memory.run_task(small_weights, CPU, json.loads(json.dumps({**rows, "sizes": [(1, 64, 64), (0, 96, 64)]})))
    assert set(found["sizes"]) == {"64x64 1 s", "96x64 0 s"}
    for each in found["sizes"].values():
        assert all_positive(each["seconds"])
        assert len(each["latents"]) == 16
    assert found["sizes"]["64x64 1 s"]["latents"] != found["sizes"]["96x64 0 s"]["latents"]
    assert all_positive(found["load_s"], found["host_gb"], found["host_high_water_gb"])


def test_a_load_in_its_own_process(memory, small_weights):
    assert all_positive(memory.run_task(small_weights, CPU, {"load": "reading alone"}))


def test_the_table_of_all_rows(run, script, monkeypatch):
    memory = script("memory")
    tasks = []

    def instead(_folder, _device, task):
        tasks.append(task)
        return report("aa") if "row" in task else {"load_s": 1.0}

    monkeypatch.setattr(memory, "in_own_process", instead)
    found = run("memory", "--sizes", "1")
    assert list(found["rows"]) == [RESIDENT]
    assert list(found["loads"]) == list(script("loading").loads_on(CPU))
    assert tasks[-1]["sizes"] == ((1, 48, 32),)
    assert all_positive(found["predicted_gb"])
    assert set(found["predicted_gb"]) == {row.name for row in memory.ROWS}


@pytest.mark.slow
def test_a_process_with_too_much_host_memory_ends(memory, small_weights, capfd):
    row = {"name": RESIDENT, "memory": "resident", "precision": "exact", "limit": None, "host": 1e-3}
    found = memory.in_own_process(small_weights, "cpu", {"row": row, "sizes": [(1, 64, 64)]})
    assert found == {"failed": "exit code 1"}
    assert "of host memory of its own, the limit is 0.001" in capfd.readouterr().err


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the page cache cannot be emptied here")
def test_a_cold_row_begins_without_what_was_read(script, run, monkeypatch, tmp_path):
    order = []
    monkeypatch.setattr(script("memory"), "predictions", lambda *_rows: {})
    monkeypatch.setattr(script("memory"), "in_own_process", lambda *_task: order.append("row") or {"failed": "x"})
    monkeypatch.setattr(os, "posix_fadvise", lambda *told: order.append(told[1:]))
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "weights").write_bytes(b"1")
    run("memory", str(tmp_path), "--cold", "--only", RESIDENT)
    assert order == [(0, 0, os.POSIX_FADV_DONTNEED), "row"]


def test_what_was_measured_before_is_kept(run, script, monkeypatch, tmp_path):
    monkeypatch.setattr(script("memory"), "predictions", lambda *_rows: {})
    monkeypatch.setattr(script("memory"), "in_own_process", lambda *_task: {"failed": "exit code 1"})
    file = tmp_path / "f.json"
    first = run("memory", "--json", str(file), "--only", RESIDENT)
    assert first["rows"] == {RESIDENT: {"failed": "exit code 1"}}
    monkeypatch.setattr(script("memory"), "in_own_process", lambda *_task: report("aa"))
    assert run("memory", "--json", str(file), "--only", RESIDENT)["rows"] == {RESIDENT: report("aa")}
    monkeypatch.setattr(script("memory"), "in_own_process", lambda *_task: pytest.fail("it is there already"))
    run("memory", "--json", str(file), "--only", RESIDENT)


def test_latents_are_compared_with_a_row_that_is_there(memory):
    base, row = (next(row for row in memory.ROWS if row.name == name) for name in (RESIDENT, "blocks, limit 8"))
    assert "latents" not in memory.row_line(row, report("aa"), {})
    assert "latents" not in memory.row_line(row, report("aa"), {RESIDENT: {"failed": "exit code 1"}})
    assert "latents" not in memory.row_line(row, report("aa"), {RESIDENT: report("aa", size="64x64 0 s")})
    assert "latents" not in memory.row_line(base, report("aa"), {RESIDENT: report("aa")})
    equal = memory.row_line(row, report("aa"), {RESIDENT: report("aa")})
    assert "latents of 96x64 1 s equal those of 'resident, no limit'" in equal
    assert "96x64 1 s differ from those of" in memory.row_line(row, report("bb"), {RESIDENT: report("aa")})
    assert "exit code 1" in memory.row_line(row, {"failed": "exit code 1"}, {})


def test_predictions_beside_peaks(memory, capsys):
    predicted = {RESIDENT: {"96x64 1 s": {"load": 9.0, "text": 1.1, "sample": 1.5, "decode": 3.0}}}
    assert memory.compare(predicted, {RESIDENT: report("aa")}) == {RESIDENT: pytest.approx(0.25)}
    assert "1.50 / 2.00" in capsys.readouterr().out


def test_full_sizes_are_the_published_ones(script):
    from kandinsky.config import FLASH_512

    assert {(width, height) for _, width, height in script("memory_rows").SIZES["full"]} <= set(FLASH_512.sizes)


def test_an_unknown_row_is_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("memory", "--only", "blocks, limit 8")
    assert "on this device there are 'reading alone'" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_of_their_own(run):
    found = run("memory", "--only", RESIDENT, "ours, auto")
    assert all_positive(found["rows"][RESIDENT]["load_s"], found["loads"]["ours, auto"]["load_s"])
