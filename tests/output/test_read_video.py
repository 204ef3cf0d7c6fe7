"""Frames of a file, part by part."""

import subprocess

import numpy as np
import pytest
from video_helpers import make, write_video

from kandinsky.errors import VideoError
from kandinsky.ffmpeg.program import ffmpeg
from kandinsky.output.read_video import open_video, read_frames


def test_all_frames_in_parts(tmp_path):
    write_video(tmp_path / "v.mp4", frames=19, width=48, height=32, fps=12)
    video = open_video(tmp_path / "v.mp4")
    assert (video.width, video.height, video.fps) == (48, 32, 12)
    parts = list(read_frames(video))
    assert [len(part) for part in parts] == [8, 8, 3]
    brightness = np.concatenate(parts).mean((1, 2, 3))
    assert np.allclose(brightness, np.linspace(10, 240, 19).astype(np.uint8), atol=2)


def test_a_rate_that_is_no_whole_number(tmp_path):
    make(tmp_path, "testsrc=size=32x32:rate=30000/1001:duration=1", {"v.mkv": ("null",)})
    assert str(open_video(tmp_path / "v.mkv").fps) == "30000/1001"


def test_a_rate_that_varies_keeps_the_length(tmp_path):
    """Eight frames of a second's eighth, then four of half a second."""
    write_video(tmp_path / "v.mp4", frames=12)
    times = "setpts='if(lt(N,8),N,8+(N-8)*4)/8/TB'"
    made = [ffmpeg(), "-v", "error", "-i", str(tmp_path / "v.mp4"), "-vf", times, "-enc_time_base", "1/8", "-bf", "0"]
    subprocess.run([*made, "-fps_mode", "passthrough", str(tmp_path / "w.mp4")], check=True)
    frames = np.concatenate(list(read_frames(open_video(tmp_path / "w.mp4"))))
    assert open_video(tmp_path / "w.mp4").fps == 8
    steps = np.abs(np.diff(frames.mean((1, 2, 3)))) > 5  # where another picture is
    assert np.flatnonzero(steps).tolist() == [*range(8), 11, 15, 19]


def test_no_video(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="no video to read"):
        open_video(tmp_path / "v.mp4")


def test_who_stops_reading_leaves_no_process(tmp_path):
    write_video(tmp_path / "v.mp4", frames=40)
    parts = read_frames(open_video(tmp_path / "v.mp4"))
    next(parts)
    parts.close()
    assert list(parts) == []
