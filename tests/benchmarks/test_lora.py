"""Low-rank training and the change of adapters at tiny size."""

import pytest
from accelerate.state import AcceleratorState
from benchmark_helpers import all_positive


@pytest.fixture(autouse=True)
def fresh_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.slow
def test_training(run):
    found = run("lora", "train", "--base-precision", "float8")
    assert all_positive(found["step"], found["limit"])
    assert (found["adapters"], found["adapters_changed"], found["other_weights_trained"]) == (32, 32, 0)


def test_plain_objective(run):
    found = run("lora", "train", "--objective", "velocity", "--batch-size", "1")
    assert all_positive(found["step"], found["limit"])
    assert (found["objective"], found["adapters_changed"], found["other_weights_trained"]) == ("velocity", 32, 0)


def test_adapters_change(run):
    found = run("lora", "swap")
    assert all_positive(found["merge_seconds"], found["change_seconds"], found["out_seconds"])
    assert found["bits_came_back"] is True
