"""`kandinsky interpolate`."""

import json

import pytest
from video_helpers import write_video

from kandinsky.cli.main import main
from kandinsky.output.read_video import open_video


def test_a_video_becomes_smooth(tmp_path, capsys):
    write_video(tmp_path / "v.mp4", frames=9)
    assert main(["interpolate", str(tmp_path / "v.mp4"), "--device", "cpu", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["num_frames"], said["fps"], said["with"]) == (25, 24, "ffmpeg")
    assert open_video(tmp_path / "v-smooth.mp4").fps == 24


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nothing.mp4"], 2, "there is no such file"),
        (["v.mp4", "--factor", "9"], 2, "allowed are 2, 3, 4"),
        (["v.mp4"], 1, "no video to read"),
    ],
)
def test_what_is_refused(tmp_path, monkeypatch, capsys, arguments, code, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "v.mp4").write_bytes(b"no video")
    assert main(["interpolate", *arguments]) == code
    assert message in capsys.readouterr().err
