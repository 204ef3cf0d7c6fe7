"""Endings that a path may have, and whether anything can be written there."""

from pathlib import Path

import pytest

from kandinsky.output.paths import IMAGE_ENDINGS, VIDEO_CODECS, VIDEO_ENDINGS, check_target, path_of
from kandinsky.output.video import CODECS


@pytest.mark.parametrize("ending", [*VIDEO_ENDINGS, ".MP4"])
def test_endings_of_videos(ending):
    assert path_of(f"v{ending}") == Path(f"v{ending}")


@pytest.mark.parametrize("ending", [*IMAGE_ENDINGS, ".PNG"])
def test_endings_of_images(ending):
    assert path_of(f"i{ending}", is_image=True) == Path(f"i{ending}")


@pytest.mark.parametrize("name", ["v.txt", "v", "v.png", ".mp4", "v.mp4.zip", ""])
def test_wrong_ending_of_a_video(name):
    with pytest.raises(ValueError, match=r"must end with one of \.mp4, \.mov, \.mkv.*or with / for a folder"):
        path_of(name)


@pytest.mark.parametrize("name", ["i.mp4", "i", "i.gif", "frames/"])
def test_wrong_ending_of_an_image(name):
    with pytest.raises(ValueError, match=r"must end with one of \.png, \.jpg, \.jpeg, \.webp$"):
        path_of(name, is_image=True)


def test_a_slash_means_a_folder():
    assert path_of("a/frames/") == Path("a/frames")
    for name in ("v.mp4/", "/", "./", "../", "a/../"):
        with pytest.raises(ValueError, match="a folder of png frames must have a name without an ending"):
            path_of(name)


def test_every_codec_is_for_some_ending():
    assert {codec for codecs in VIDEO_CODECS.values() for codec in codecs} == set(CODECS)


def test_what_can_be_written(tmp_path):
    (tmp_path / "old.mp4").touch()
    (tmp_path / "empty").mkdir()
    for name in ("new.mp4", "old.mp4", "new/", "empty/", "x" * 251 + ".mp4"):
        check_target(f"{tmp_path}/{name}")
    check_target(tmp_path / "i.png", is_image=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old.mp4"]  # a look leaves nothing behind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere/v.mp4", r"the folder '.*nowhere' does not exist; create it first"),
        ("file/v.mp4", r"the folder '.*file' does not exist"),
        ("folder.mp4", "is a folder; a file name is needed"),
        ("full/", "is not empty; name a new folder for the frames"),
        ("file/", "is not empty; name a new folder for the frames"),
        ("x" * 252 + ".mp4", "of at most 255 bytes"),
        ("🐦" * 63 + ".mp4", "of at most 255 bytes"),
        ("a\0.mp4", r"a name in UTF-8 without \\0"),
        ("\ud800.mp4", "a name in UTF-8"),
        ("x" * 300 + "/v.mp4", "does not exist"),
    ],
)
def test_what_cannot(tmp_path, name, message):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(ValueError, match=message):
        check_target(f"{tmp_path}/{name}")


def test_a_folder_that_cannot_be_written():
    with pytest.raises(ValueError, match="cannot write in '/proc': "):
        check_target("/proc/v.mp4")


def test_a_video_needs_ffmpeg_and_an_image_does_not(tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="no ffmpeg to read or write videos with"):
        check_target(tmp_path / "v.mp4")
    check_target(tmp_path / "v.gif")
    check_target(tmp_path / "i.png", is_image=True)
