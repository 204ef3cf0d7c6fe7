"""Rules that all scripts keep."""

import ast
from pathlib import Path

import pytest
from benchmark_helpers import BENCHMARKS

NO_BENCHMARK = {"parallel_plot"}
"""Draws what another one measured."""


def scripts() -> list[str]:
    files = sorted(BENCHMARKS.glob("*.py"))
    return [file.stem for file in files if "__main__" in file.read_text() and file.stem not in NO_BENCHMARK]


@pytest.mark.parametrize("name", scripts())
def test_a_script_says_how_it_is_tried_out_and_what_its_limit_is(name):
    said = ast.get_docstring(ast.parse((BENCHMARKS / f"{name}.py").read_text()))
    assert said is not None
    assert f"python benchmarks/{name}.py --size tiny --device cpu" in said
    assert "limit" in said
    assert "last line is JSON" in " ".join(said.split())


@pytest.mark.parametrize("name", [*scripts(), *NO_BENCHMARK])
def test_a_script_explains_itself(script, capsys, name):
    with pytest.raises(SystemExit) as end:
        script(name).main(["--help"])
    assert end.value.code == 0
    assert f"python benchmarks/{name}.py" in capsys.readouterr().out


@pytest.mark.parametrize("name", [*scripts(), *NO_BENCHMARK])
def test_a_script_has_a_test_file_of_its_name(name):
    assert (Path(__file__).parent / f"test_{name}.py").is_file()
