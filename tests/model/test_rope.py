"""Rotary position embedding over three axes."""

import cmath

import pytest
import torch

from kandinsky.model.layout import Clip, TokenLayout
from kandinsky.model.rope import MAX_POSITIONS, RoPE3D, axis_angles, rotate

DIMS = (2, 4, 6)


def test_angles_of_a_token_are_its_places():
    """Clip after clip, frame, row, column; text does not turn."""
    table = RoPE3D(DIMS)(TokenLayout((Clip((1, 1, 1), 2), Clip((2, 3, 4), 1)), scale_factor=(1.0, 2.0, 1.0)))
    assert table.shape == (3 + 24 + 1, sum(DIMS) // 2, 2)
    token = 3 + (1 * 3 + 2) * 4 + 3  # frame 1, row 2, column 3 of the second clip
    places = (1, 2 / 2, 3)
    angles = [
        place * 10_000 ** (-index / (dim // 2))
        for place, dim in zip(places, DIMS, strict=True)
        for index in range(dim // 2)
    ]
    expected = torch.tensor([[cmath.rect(1, angle).real, cmath.rect(1, angle).imag] for angle in angles])
    torch.testing.assert_close(table[token], expected)
    for text in (1, 2, 27):
        assert table[text].tolist() == [[1, 0]] * 6


def test_a_grid_beyond_the_table():
    rope = RoPE3D(DIMS)
    assert len(rope(TokenLayout((Clip((MAX_POSITIONS, 1, 1), 0),)))) == MAX_POSITIONS
    with pytest.raises(ValueError, match=r"token grid \(1, 129, 1\): RoPE holds 128 positions an axis"):
        rope(TokenLayout((Clip((1, 129, 1), 5),)))


def test_pairs_of_channels_turn():
    """As complex numbers."""
    x, angle = torch.tensor([[[3.0, 4.0, 1.0, 0.0]]]), torch.tensor([[0.5, 2.0]])
    found = rotate(x, torch.stack((angle.cos(), angle.sin()), -1), scale=2.0)
    turned = [2 * complex(3, 4) * cmath.rect(1, 0.5), 2 * cmath.rect(1, 2.0)]
    torch.testing.assert_close(found, torch.tensor([[[part for z in turned for part in (z.real, z.imag)]]]))


def test_products_tell_distances():
    """The reason for RoPE: a query's product with a key depends on how far apart they are."""
    table = RoPE3D(DIMS)(TokenLayout((Clip((1, 1, 9), 0),)))
    query, key = torch.randn(1, 1, 12), torch.randn(1, 1, 12)

    def product(one, other):
        return (rotate(query, table[one : one + 1]) * rotate(key, table[other : other + 1])).sum()

    torch.testing.assert_close(product(1, 3), product(6, 8))
    assert not torch.isclose(product(1, 3), product(1, 4))


def test_the_table_is_made_on_the_host():
    """Also within a `torch.device("meta")`, where models are built; it goes to that device then."""
    with torch.device("meta"):
        assert not axis_angles(4).is_meta
        assert RoPE3D(DIMS).args_0.is_meta
