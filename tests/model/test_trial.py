"""The trial launch of fused kernels, and what is taken if it fails."""

import logging
import subprocess
from dataclasses import replace

import pytest
import torch

from kandinsky.model.operations import PLAIN
from kandinsky.model.trial import operations_that_run

SIZES = {"device": torch.device("cpu"), "dtype": torch.float32, "model_dim": 64, "head_dim": 16}


def fails(error):
    def step(*_arguments, **_settings):
        raise error

    return step


@pytest.mark.parametrize("step", ["add_norm", "norm_rope", "gelu"])
@pytest.mark.parametrize("error", [subprocess.CalledProcessError(1, ["cc"]), Exception("shared memory"), OSError("x")])
def test_what_fails_is_not_taken_and_one_line_says_so(step, error, caplog):
    broken = replace(PLAIN, name="triton", fallback=PLAIN, **{step: fails(error)})
    with caplog.at_level(logging.WARNING):
        assert operations_that_run(broken, **SIZES) is PLAIN
    (record,) = caplog.records
    assert "the fused kernels do not run here" in record.message
    assert type(error).__name__ in record.message


def test_what_runs_is_taken():
    working = replace(PLAIN, name="triton", fallback=PLAIN)
    assert operations_that_run(working, **SIZES) is working


def test_what_was_asked_for_by_name_is_not_tried():
    broken = replace(PLAIN, name="triton", add_norm=fails(OSError()))
    assert operations_that_run(broken, **SIZES) is broken


@pytest.mark.gpu
def test_on_a_gpu_the_fused_kernels_run():
    from kandinsky.model.operations import choose_operations

    place = {"device": torch.device("cuda", 0), "dtype": torch.bfloat16, "model_dim": 3072, "head_dim": 64}
    found = operations_that_run(choose_operations("auto", place["device"]), **place)
    assert found.name == "triton"
