"""ffmpeg's filter: which frame is where, and what happens if it fails."""

import numpy as np
import pytest
from fakes import ffmpeg_script
from helpers import running, until

from kandinsky.errors import VideoError
from kandinsky.interpolate import minterpolate
from kandinsky.interpolate.minterpolate import USUAL, Filters, FilterSettings, minterpolated, segments

GAPS, CONTEXT = USUAL.gaps, USUAL.context
TWO = FilterSettings(at_once=2)


def moving(count):
    """A bright square that moves 4 pixels to the right in each frame."""
    frames = np.full((count, 64, 96, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:44, 8 + 4 * index : 32 + 4 * index] = 200
    return frames


def smooth(frames, factor, size=8, **settings):
    chunks = (frames[i : i + size] for i in range(0, len(frames), size))
    return np.concatenate(list(minterpolated(chunks, factor, settings=FilterSettings(**settings))))


@pytest.mark.parametrize("factor", [2, 3, 4])
@pytest.mark.parametrize("count", [1, 2, 10])
def test_frames_that_were_there_are_untouched(count, factor):
    frames = moving(count)
    made = smooth(frames, factor, size=3)
    assert made.shape == ((count - 1) * factor + 1, 64, 96, 3)
    assert np.array_equal(made[::factor], frames)


def test_what_is_made_lies_between():
    """The square's middle moves evenly."""
    made = smooth(moving(10), 2)
    middles = [np.average(np.arange(96), weights=np.clip(frame[32, :, 0].astype(float) - 60, 0, 140)) for frame in made]
    assert np.allclose(np.diff(middles), 2, atol=0.5)


def test_chunks_may_be_buffers():
    def chunks(frames):
        buffer = np.empty_like(frames[:1])
        for frame in frames:
            buffer[0] = frame
            yield buffer

    frames = moving(6)
    assert np.array_equal(np.concatenate([chunk.copy() for chunk in minterpolated(chunks(frames), 3)])[::3], frames)


@pytest.mark.parametrize("cut", [1, GAPS - 1, GAPS, GAPS + 1])
def test_a_scene_ends_at_once(cut):
    """Also beside the border of two segments. The cut is in the gap after frame `cut`."""
    frames = moving(GAPS + 4)
    frames[cut + 1 :] = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    made = smooth(frames, 3)
    assert np.array_equal(made[3 * cut + 1], frames[cut])
    assert np.array_equal(made[3 * cut + 2], frames[cut + 1])


def test_a_still_stays():
    """But for what the filter's colours round."""
    frames = moving(1).repeat(GAPS + 3, axis=0)
    assert np.abs(smooth(frames, 2).astype(int) - frames[0]).max() <= 2


@pytest.mark.parametrize(("height", "width"), [(16, 24), (54, 90), (63, 95)])
def test_any_size(height, width):
    """Also smaller than the filter takes, and at edges that no block of it covers."""
    frames = moving(5)[:, :height, :width]
    made = smooth(frames, 2)
    assert made.shape == (9, height, width, 3)
    assert np.array_equal(made[::2], frames)


@pytest.mark.parametrize("count", [1, 2, GAPS, GAPS + 1, GAPS + 2, 2 * GAPS + 1, 3 * GAPS + 2])
def test_segments(count):
    """Each gap is in one of them, with frames before it and one after."""
    found = list(segments(np.arange(count, dtype=np.uint8).reshape(-1, 1, 1, 1, 1)))
    numbers = [[int(frame[0, 0, 0]) for frame in segment.frames] for segment in found]
    starts = [own[0] for own in ([int(frame[0, 0, 0]) for frame in segment.own] for segment in found)]
    assert starts == list(range(0, max(count - 1, 1), GAPS))
    for segment, each, start in zip(found, numbers, starts, strict=True):
        stop = min(start + GAPS, count - 1)
        assert segment.context == min(start, CONTEXT)
        assert each == [*range(start - segment.context, stop + 1), min(stop + 1, count - 1)]


@pytest.mark.parametrize("size", [1, 100])
def test_neither_cores_nor_chunks_change_the_frames(size):
    assert np.array_equal(smooth(moving(20), 2, size=size, at_once=1), smooth(moving(20), 2, at_once=3))


def test_two_videos_at_once():
    frames = moving(10), moving(10)[::-1]
    made = zip(*(minterpolated([each], 2, settings=TWO) for each in frames), strict=True)
    for each, parts in zip(frames, zip(*made, strict=True), strict=True):
        assert np.array_equal(np.concatenate(parts), smooth(each, 2))


def test_as_many_at_once_as_there_are_cores(monkeypatch):
    """And as many as have room in memory, but never none."""
    monkeypatch.setattr(minterpolate, "cores", lambda: 64)
    for (height, width), expected in {(384, 672): 16, (1080, 1920): 2, (4320, 7680): 1}.items():
        with Filters(height, width, 2) as filters:
            assert filters.at_once == expected
    monkeypatch.setattr(minterpolate, "cores", lambda: 2)
    with Filters(384, 672, 2) as filters:
        assert filters.at_once == 2


def test_memory_does_not_grow_with_the_video():
    """Frames are taken from the decoder only as fast as they are filled."""
    taken = []

    def decoder():
        for frame in moving(12 * GAPS)[:, :16, :16]:
            taken.append(frame)
            yield frame[None]

    ahead, given = [], 0
    for chunk in minterpolated(decoder(), 2, settings=TWO):
        given += len(chunk)
        ahead.append(len(taken) - given // 2)
    assert max(ahead) <= 4 * GAPS + 2


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
def test_all_ffmpegs_end_when_it_is_left(tmp_path, monkeypatch, error):
    """By Ctrl-C while it waits for frames, or by whoever wants no more of them."""
    numbers = tmp_path / "numbers"
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, f"echo $$ >> {numbers}; exec sleep 60"))

    def decoder():
        yield moving(2 * GAPS + 4)
        until(lambda: numbers.exists() and len(numbers.read_text().split()) == 2)
        raise error

    with pytest.raises(error):
        list(minterpolated(decoder(), 2, settings=TWO))
    assert not running(numbers.read_text().split())


def test_nothing_of_nothing():
    assert list(minterpolated([], 3)) == []


@pytest.mark.parametrize("script", ["exit 1", "head -c 100 > /dev/null; exit 1", "cat > /dev/null"])
def test_a_filter_that_fails_is_told(tmp_path, monkeypatch, script):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, script))
    with pytest.raises(VideoError, match="minterpolate"):
        smooth(moving(40), 2)
