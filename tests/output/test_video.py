"""The written video as ffmpeg sees it, and what is left behind when writing fails."""

import os
import re
import signal
import subprocess
import threading
import time

import numpy as np
import pytest
from imageio_ffmpeg import get_ffmpeg_exe, read_frames

from kandinsky.errors import VideoError
from kandinsky.output.paths import check_target
from kandinsky.output.video import QUEUED_CHUNKS, VideoWriter


def gradient(frames, height=32, width=48):
    ramp = np.linspace(0, 255, width).astype(np.uint8)
    return np.broadcast_to(ramp[:, None], (frames, height, width, 3))


def write(path, frames):
    with VideoWriter(path, width=frames.shape[2], height=frames.shape[1], fps=8) as writer:
        for start in range(0, len(frames), 3):
            writer.write(frames[start : start + 3])
        writer.finish()


def test_video_is_what_was_asked_for(tmp_path):
    frames = gradient(9)
    write(tmp_path / "v.mp4", frames)
    said = subprocess.run([get_ffmpeg_exe(), "-i", tmp_path / "v.mp4"], capture_output=True, text=True, check=False)
    assert re.search(r"Video: h264 .*yuv420p.*48x32.* 8 fps", said.stderr)
    reader = read_frames(tmp_path / "v.mp4")
    next(reader)
    read = np.stack([np.frombuffer(frame, np.uint8).reshape(32, 48, 3) for frame in reader])
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).mean() < 3
    assert [file.name for file in tmp_path.iterdir()] == ["v.mp4"]


def test_a_failure_leaves_the_old_file(tmp_path):
    target = tmp_path / "v.mp4"
    target.write_bytes(b"old")
    with pytest.raises(RuntimeError, match="decode failed"), VideoWriter(target, width=48, height=32, fps=8) as writer:
        writer.write(gradient(3))
        raise RuntimeError("decode failed")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_nothing_appears_before_the_end(tmp_path):
    with VideoWriter(tmp_path / "v.mp4", width=48, height=32, fps=8) as writer:
        writer.write(gradient(3))
        assert not (tmp_path / "v.mp4").exists()
        writer.finish()
        assert (tmp_path / "v.mp4").exists()


def test_a_slow_encoder_holds_the_writer_back(tmp_path):
    """No more than a few chunks wait in memory."""
    frames = gradient(8, 256, 256)
    with VideoWriter(tmp_path / "v.mp4", width=256, height=256, fps=8) as writer:
        os.kill(writer._process.pid, signal.SIGSTOP)
        timer = threading.Timer(0.5, os.kill, (writer._process.pid, signal.SIGCONT))
        timer.start()
        start = time.perf_counter()
        for _ in range(12):
            writer.write(frames)
            assert writer._queue.qsize() <= QUEUED_CHUNKS
        assert time.perf_counter() - start > 0.4
        writer.finish()
    assert writer.num_frames == 96


def test_dead_encoder_is_an_error(tmp_path):
    frames = gradient(40, 256, 256)  # more than a pipe holds
    with pytest.raises(VideoError, match="ffmpeg failed to write"):  # noqa: SIM117
        with VideoWriter(tmp_path / "v.mp4", width=256, height=256, fps=8) as writer:
            writer._process.kill()
            writer.write(frames)
            writer.finish()
    assert list(tmp_path.iterdir()) == []


def test_encoder_that_cannot_write_is_an_error(tmp_path):
    folder = tmp_path / "gone"
    folder.mkdir()
    writer = VideoWriter(folder / "v.mp4", width=48, height=32, fps=8)
    with pytest.raises(VideoError, match="ffmpeg failed to write"), writer:
        for file in folder.iterdir():
            file.unlink()
        folder.rmdir()
        writer.write(gradient(30))
        writer.finish()


@pytest.mark.parametrize("name", ["v.txt", "v", "v.png", ".mp4"])
def test_wrong_ending(tmp_path, name):
    with pytest.raises(ValueError, match=r"must end with one of \.mp4, \.mov, \.mkv"):
        check_target(tmp_path / name)


def test_missing_folder(tmp_path):
    with pytest.raises(ValueError, match=r"the folder '.*nowhere' does not exist"):
        check_target(tmp_path / "nowhere" / "v.mp4")


def test_folder_that_cannot_be_written():
    with pytest.raises(ValueError, match="cannot write in '/proc'"):
        check_target("/proc/v.mp4")


def test_target_that_is_a_folder(tmp_path):
    (tmp_path / "v.mp4").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        check_target(tmp_path / "v.mp4")
