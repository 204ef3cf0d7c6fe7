"""Steps of the real trainer at tiny size."""

import pytest
from accelerate.state import AcceleratorState
from benchmark_helpers import all_positive


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_figures(run):
    found = run("training", "--steps", "3")
    assert all_positive(found["step"], found["limit"])
    assert (found["steps"], found["batch"], found["seconds_of_clip"], found["gpus"]) == (3, 2, 1, 1)
    assert found["peak_gib"] is None


def test_steps_that_only_warm_up_are_refused(run, capsys):
    with pytest.raises(SystemExit):
        run("training", "--steps", "2")
    assert "allowed is 3 and more" in capsys.readouterr().err


def test_tokens_of_the_published_clip(script):
    case = script("training").CASES["full"]
    assert case.grid(12) == (25, 48, 84)
    assert case.tokens(12) == 25_424
