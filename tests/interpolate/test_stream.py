"""Chunks with frames between them: nothing lost, nothing changed, nothing seen twice."""

import pytest
import torch

from kandinsky.interpolate.stream import check_factor, count_of, interpolated


def between(frames, factor):
    """Each gap is marked with the mean of its ends and the place in it."""
    gaps = frames[:-1] // 2 + frames[1:] // 2
    return torch.stack([gaps + place for place in range(1, factor)], dim=1)


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("sizes", [[1], [2], [9, 8, 8], [1, 1, 1], [8, 3]])
def test_frames_stay_and_gaps_are_filled(factor, sizes):
    frames = (torch.arange(sum(sizes), dtype=torch.uint8) * 8)[:, None, None, None].expand(-1, 2, 3, 3).contiguous()
    chunks = list(interpolated(frames.split(sizes), factor, between))
    assert [len(chunk) for chunk in chunks] == [factor * (sizes[0] - 1) + 1, *(factor * size for size in sizes[1:])]
    made = torch.cat(chunks)
    assert len(made) == count_of(len(frames), factor)
    assert torch.equal(made[::factor], frames)
    for place in range(1, factor):
        assert torch.equal(made[place::factor], between(frames, factor)[:, place - 1])


def test_a_buffer_may_be_written_again():
    def chunks():
        buffer = torch.zeros(2, 1, 1, 3, dtype=torch.uint8)
        for value in (10, 20):
            buffer.fill_(value)
            yield buffer

    made = [chunk.clone() for chunk in interpolated(chunks(), 2, between)]
    assert torch.cat(made)[:, 0, 0, 0].tolist() == [10, 11, 10, 16, 20, 21, 20]


def test_nothing_is_made_before_it_is_asked_for():
    asked = []

    def chunks():
        for index in range(3):
            asked.append(index)
            yield torch.zeros(2, 1, 1, 3, dtype=torch.uint8)

    stream = interpolated(chunks(), 2, between)
    next(stream)
    assert asked == [0]


@pytest.mark.parametrize("factor", [1, 5, True, "3", 2.5, 2.0, None])
def test_other_factors_are_refused(factor):
    with pytest.raises(ValueError, match=r"interpolate=.*: allowed are 2, 3, 4"):
        check_factor(factor)


def test_counts():
    assert [count_of(97, factor) for factor in (None, 2, 3, 4)] == [97, 193, 289, 385]
    assert count_of(1, 3) == 1
