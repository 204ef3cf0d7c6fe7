"""Rows in float8 with a scale for each."""

import pytest
import torch

from kandinsky.model.quantised import FLOAT8, FLOAT8_MAX, Quantised, quantise_weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_within_half_a_step(dtype):
    """The largest magnitude of a row is kept; every other value within e4m3's half step of 1/16."""
    weight = (torch.randn(33, 128) * torch.logspace(-3, 3, 33)[:, None]).to(dtype)
    values, scale = quantise_weight(weight)
    assert (values.dtype, values.shape, scale.dtype, scale.shape) == (FLOAT8, (33, 128), torch.float32, (1, 33))
    assert (values.float().abs().amax(1) == FLOAT8_MAX).all()
    back = values.float() * scale.T
    assert ((back - weight.float()).abs() <= weight.float().abs() / 16 + scale.T * 2**-9).all()


def test_a_row_of_zeros_stays_one():
    values, scale = quantise_weight(torch.zeros(2, 4))
    assert (values.float() == 0).all()
    assert (scale > 0).all()


def test_sizes_on_the_meta_device():
    values, scale = quantise_weight(torch.empty(3, 4, device="meta"))
    assert (values.shape, values.dtype, scale.shape, scale.dtype) == ((3, 4), FLOAT8, (1, 3), torch.float32)


def test_rows_are_cut_together():
    rows = Quantised(torch.arange(8.0).view(4, 2), torch.arange(4.0)[:, None])
    part = rows[1:3]
    assert (len(rows), len(part)) == (4, 2)
    assert (part.values.tolist(), part.scale.tolist()) == ([[2, 3], [4, 5]], [[1], [2]])


def test_room_for_rows():
    room = Quantised.empty_like(torch.empty(3, 4))
    assert (room.values.shape, room.values.dtype) == ((3, 4), FLOAT8)
    assert (room.scale.shape, room.scale.dtype) == ((3, 1), torch.float32)
