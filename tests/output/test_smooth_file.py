"""A file to a smooth one."""

import os
import signal

import numpy as np
import pytest
import torch
from fakes import FAILS_AT_THE_END, ffmpeg_script
from helpers import LONG, fork_server, running, until
from killed_process import interpolate
from video_helpers import write_video

from kandinsky.errors import VideoError
from kandinsky.output.options import OutputOptions
from kandinsky.output.read_video import open_video, read_frames
from kandinsky.output.smooth_file import smooth, smoothing_of

CPU = torch.device("cpu")
PART = 8 * 64 * 64 * 3
"""Bytes of the first frames that are read of a file."""
STOPS_READING = f"""
echo $$ >> "${{0%/*}}/numbers"
case "$*" in *cfr*) ;; *) exec "$real" "$@";; esac
"$real" "$@" | head -c {PART + 100}
touch "${{0%/*}}/begun"
while kill -0 $PPID 2> /dev/null; do sleep 0.1; done
"""
"""For `ffmpeg_script`: of a video that is read, the first part comes, and then nothing as long as somebody waits."""


@pytest.fixture
def file(tmp_path):
    write_video(tmp_path / "v.mp4", frames=9)
    return str(tmp_path / "v.mp4")


def of(file, save_path=None, *, options=OutputOptions(type="file"), **settings):  # noqa: B008  # a frozen value
    return smoothing_of(file, save_path, options=options, device=CPU, **settings)


@pytest.mark.parametrize("way", ["network", None])
def test_a_file(file, tmp_path, way):
    asked = of(file, way=way, factor=4)
    assert asked.way == (way or "ffmpeg")
    assert smooth(asked) == 33
    made = open_video(tmp_path / "v-smooth.mp4")
    assert (made.width, made.height, made.fps) == (64, 64, 32)
    found, before = (np.concatenate(list(read_frames(video))) for video in (made, open_video(tmp_path / "v.mp4")))
    assert len(found) == 33
    assert np.abs(found[::4].astype(int) - before).max() <= 3  # what encoding changes


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factor": 5}, "interpolate=5: allowed are 2, 3, 4"),
        ({"way": "magic"}, "interpolate_with='magic': allowed are 'ffmpeg', 'network'"),
        ({"save_path": "v.gif"}, "must end with one of .mp4"),
        ({"save_path": "nowhere/v.mp4"}, "does not exist"),
        ({"options": OutputOptions(type="file", crf=99)}, "crf=99"),
    ],
)
def test_wrong_arguments(file, settings, message):
    with pytest.raises(ValueError, match=message):
        of(file, **settings)


def test_the_video_itself_is_not_written_over(file, tmp_path):
    (tmp_path / "link.mp4").symlink_to(file)
    for name in (file, str(tmp_path / "link.mp4")):
        with pytest.raises(ValueError, match=r"save_path=.*: it is what the call is given; name another file"):
            of(file, name)


def test_no_such_file():
    with pytest.raises(ValueError, match="there is no such file"):
        of("nothing.mp4")


@pytest.mark.slow
@pytest.mark.parametrize("way", ["network", "ffmpeg"])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_killed_in_the_middle(file, tmp_path, how, way):
    """What was there before is still there, and ffmpeg's processes end."""
    (tmp_path / "v-smooth.mp4").write_bytes(b"old")
    (tmp_path / "program").mkdir()
    program = ffmpeg_script(tmp_path / "program", STOPS_READING)
    process = fork_server().Process(target=interpolate, args=(file, way, program))
    process.start()
    numbers = tmp_path / "program" / "numbers"
    each = 4 if way == "ffmpeg" else 3  # for the first frame, the frames, the encoder, and the filter
    until(lambda: numbers.exists() and len(numbers.read_text().split()) == each)
    until((tmp_path / "program" / "begun").exists)
    os.kill(process.pid, how)
    process.join(LONG)
    assert process.exitcode == (-how if how is signal.SIGKILL else 130)
    assert (tmp_path / "v-smooth.mp4").read_bytes() == b"old"
    until(lambda: not running(numbers.read_text().split()))
    if how is signal.SIGINT:
        assert sorted(path.name for path in tmp_path.iterdir()) == ["program", "v-smooth.mp4", "v.mp4"]


def test_a_failure_leaves_nothing(file, tmp_path, monkeypatch):
    asked = of(file, way="network")
    (tmp_path / "program").mkdir()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", ffmpeg_script(tmp_path / "program", FAILS_AT_THE_END))
    with pytest.raises(VideoError):
        smooth(asked)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["program", "v.mp4"]
