"""Which paths a result may have, and whether it can be written there."""

from pathlib import Path

import pytest

from kandinsky.output.paths import check_target, path_of, user_path


@pytest.mark.parametrize("name", ["v.mp4", "V.MKV", "v.gif", "v.webp", "a.b.mov"])
def test_videos(name):
    assert path_of(name) == Path(name)


def test_folders_and_images():
    assert path_of("frames/").suffix == ""
    assert path_of("i.JPG", is_image=True).suffix == ".JPG"
    for wrong, image in (("v.png", False), ("v.mp4", True), ("v", False), ("v.mp4/", False), ("../", False)):
        with pytest.raises(ValueError, match="save_path="):
            path_of(wrong, is_image=image)


@pytest.mark.parametrize("wrong", [b"v.mp4", 3, None])
def test_what_is_no_path(wrong):
    with pytest.raises(ValueError, match=r"folder=.*: allowed is a path of text"):
        user_path(wrong, "folder")


def test_a_target_that_cannot_be_written(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    (tmp_path / "v.mp4").mkdir()
    for target, message in (
        (tmp_path / "gone" / "v.mp4", "does not exist; create it first"),
        (f"{tmp_path}/full/", "is not empty; name a new folder"),
        (tmp_path / "v.mp4", "is a folder; a file name is needed"),
        (tmp_path / ("v" * 300 + ".mp4"), "of at most 255 bytes"),
    ):
        with pytest.raises(ValueError, match=message):
            check_target(target)
    before = sorted(tmp_path.iterdir())
    check_target(tmp_path / "w.mp4")
    assert sorted(tmp_path.iterdir()) == before
