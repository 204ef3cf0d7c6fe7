"""The arguments and the last line that all scripts share."""

import json

import pytest
import torch


def test_without_a_gpu_the_default_says_how_to_try_the_script_out(script, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    module = script("script")
    given = module.parser_of("A script.").parse_args([])
    with pytest.raises(SystemExit, match="there is no GPU here; --size tiny --device cpu"):
        module.device_in(given)


def test_figures_go_into_the_last_line_and_into_a_file(script, capsys, tmp_path):
    module = script("script")
    given = module.parser_of("A script.").parse_args(["--device", "cpu", "--json", str(tmp_path / "f.json")])
    figures = {**module.machine(module.device_in(given)), "ms": 1.5, "peak": None}
    module.finish(figures, given)
    assert json.loads(capsys.readouterr().out) == json.loads((tmp_path / "f.json").read_text()) == figures
    assert figures["device"] == "cpu"


def test_a_figure_that_is_no_number_is_not_written(script, tmp_path):
    module = script("script")
    given = module.parser_of("A script.").parse_args(["--device", "cpu", "--json", str(tmp_path / "f.json")])
    with pytest.raises(ValueError, match="not JSON compliant"):
        module.finish({"ms": float("nan")}, given)
    assert not (tmp_path / "f.json").exists()
