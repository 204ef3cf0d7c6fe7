"""Finding ffmpeg."""

import imageio_ffmpeg
import pytest

from kandinsky.ffmpeg.program import ffmpeg


def test_no_ffmpeg_at_all(monkeypatch, tmp_path):
    def none():
        raise RuntimeError("No ffmpeg exe could be found")

    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"none' \(IMAGEIO_FFMPEG_EXE\) is not a program"):
        ffmpeg()
    monkeypatch.setattr(imageio_ffmpeg, "get_ffmpeg_exe", none)
    with pytest.raises(ValueError, match="no ffmpeg to read or write videos with: No ffmpeg exe could be found"):
        ffmpeg()
