"""ffmpeg's filter: which frame is where, and what happens if it fails."""

import numpy as np
import pytest
from fakes import ffmpeg_script

from kandinsky.errors import VideoError
from kandinsky.output.minterpolate import minterpolated


def moving(count):
    """A bright square that moves 4 pixels to the right in each frame."""
    frames = np.full((count, 64, 96, 3), 40, np.uint8)
    for index, frame in enumerate(frames):
        frame[20:44, 8 + 4 * index : 32 + 4 * index] = 200
    return frames


def smooth(frames, factor, size=8):
    return np.concatenate(list(minterpolated((frames[i : i + size] for i in range(0, len(frames), size)), factor)))


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


def test_a_scene_ends_at_once():
    frames = moving(4)
    frames[2:] = np.random.default_rng(0).integers(0, 256, (8, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    made = smooth(frames, 2)
    assert np.array_equal(made[3], frames[2])


def test_nothing_of_nothing():
    assert list(minterpolated([], 3)) == []


@pytest.mark.parametrize("script", ["exit 1", "head -c 100 > /dev/null; exit 1", "cat > /dev/null"])
def test_a_filter_that_fails_is_told(tmp_path, monkeypatch, script):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path, script))
    with pytest.raises(VideoError, match="minterpolate"):
        smooth(moving(40), 2)
