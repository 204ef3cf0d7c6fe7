"""The judge's shares, with one clip of a second."""

import pytest
import torch
from benchmark_helpers import all_positive


@pytest.mark.slow
def test_figures(run):
    found = run("quality", "--prompts", "1", "--only")
    assert list(found["rows"]) == ["exact"]
    shares = found["rows"]["exact"]
    assert shares["psnr"] is None
    assert set(shares) == {*found["limit"], "psnr"}
    assert all(0 <= share <= 1 for name, share in shares.items() if name != "psnr")
    assert all_positive(found["limit"])
    assert (found["prompts"], found["seconds"]) == (1, 1)


def test_psnr_of_equal_clips_is_none(script):
    psnr = script("quality").psnr
    clip = torch.full((2, 4, 4, 3), 7, dtype=torch.uint8)
    assert psnr([clip], [clip]) is None
    assert psnr([clip + 1], [clip]) == pytest.approx(48.13, abs=0.01)


def test_rows_of_this_machine(script):
    rows = [row.name for row in script("quality").ROWS if row.runs_on(torch.device("cpu"))]
    alone = ["exact", "kernels torch", "float32", "VAE alone in float8"]
    assert rows == [*alone, "tensor, 2 processes", "sequence, 2 processes"]


@pytest.mark.slow
def test_a_row_with_another_vae(run):
    found = run("quality", "--prompts", "1", "--only", "VAE alone in float8")
    assert 40 < found["rows"]["VAE alone in float8"]["psnr"] < 65


@pytest.mark.slow
def test_a_row_of_two_processes(run):
    found = run("quality", "--prompts", "1", "--only", "sequence, 2 processes")
    psnr = found["rows"]["sequence, 2 processes"]["psnr"]
    assert psnr is None or psnr > 60  # strips of the VAE add up their sums in another order
