"""How clips lie in the token stream."""

import pytest
import torch

from kandinsky.model.layout import Clip, Segments, TokenLayout

CPU = torch.device("cpu")


def test_lengths():
    layout = TokenLayout((Clip((1, 2, 3), 5), Clip((2, 2, 3), 4)))
    assert layout.segment_lengths == (6, 5, 12, 4)
    assert layout.tokens == 27
    assert [clip.tokens for clip in layout.clips] == [11, 16]


def test_segments_tell_each_rows_own():
    segments = Segments.of((2, 0, 3), CPU)
    assert segments.index.tolist() == [0, 0, 2, 2, 2]
    assert segments.index.dtype == torch.int32
    assert [part.tolist() for part in segments.split(torch.arange(5))] == [[0, 1], [], [2, 3, 4]]


def test_a_grid_must_divide_into_groups():
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) is not a multiple of num_groups=\(1, 2, 2\)"):
        TokenLayout((Clip((2, 4, 4), 5), Clip((2, 3, 4), 5)), (1, 2, 2))
