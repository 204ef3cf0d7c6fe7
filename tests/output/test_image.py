"""Images, animations and folders of frames: what is in them, and the record."""

import numpy as np
import pytest
from PIL import Image

from kandinsky.output.image import (
    JPEG_PROMPT,
    animation_writer,
    folder_writer,
    image_writer,
    read_image_comment,
)

NASTY = "a \"cat\" 'x'\n\r\n = ; # \\ %s \t\0 😀 Ödipus"
FRAMES = np.linspace(0, 255, 5 * 64 * 96).astype(np.uint8).reshape(5, 64, 96, 1).repeat(3, axis=3)
"""Gray, brighter from row to row and from frame to frame."""


def write(writer, frames=FRAMES):
    with writer:
        writer.write(frames[:2])
        assert not writer.path.exists()  # before the end
        if len(frames) > 2:
            writer.write(frames[2:])
        writer.finish()
    assert writer.num_frames == len(frames)
    return writer.path


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "PNG"])
@pytest.mark.parametrize("comment", [NASTY, None])
def test_an_image(tmp_path, ending, comment):
    path = write(image_writer(tmp_path / f"i.{ending}", comment), FRAMES[:1])
    with Image.open(path) as image:
        assert image.format == {"png": "PNG", "webp": "WEBP"}.get(ending.lower(), "JPEG")
        difference = np.abs(np.asarray(image).astype(int) - FRAMES[0]).mean()
    assert difference == 0 if ending.lower() == "png" else difference < 3
    assert read_image_comment(path) == comment
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_jpg_has_room_for_a_long_record(tmp_path):
    comment = "x" * (JPEG_PROMPT + 1000)
    assert read_image_comment(write(image_writer(tmp_path / "i.jpg", comment), FRAMES[:1])) == comment


@pytest.mark.parametrize("ending", ["gif", "webp"])
@pytest.mark.parametrize(("fps", "total"), [(8, 625), (24, 208), (7, 714), (100, 50)])
def test_an_animation_lasts_as_long_as_its_frames(tmp_path, ending, fps, total):
    path = write(animation_writer(tmp_path / f"v.{ending}", NASTY, fps=fps))
    durations = []
    with Image.open(path) as image:
        assert image.info["loop"] == 0
        for index in range(image.n_frames):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
    assert len(durations) == 5
    assert sum(durations) == pytest.approx(total, abs=10 if ending == "gif" else 1)
    assert read_image_comment(path) == NASTY


def test_a_folder_of_frames(tmp_path):
    path = write(folder_writer(tmp_path / "frames", NASTY))
    files = sorted(path.iterdir())
    assert [file.name for file in files] == [f"0000{index}.png" for index in range(5)]
    assert np.array_equal([np.asarray(Image.open(file)) for file in files], FRAMES)
    assert {read_image_comment(file) for file in files} == {NASTY}


def test_frames_are_copied(tmp_path):
    """Whoever decodes uses its buffer again."""
    buffer = FRAMES[:1].copy()
    with image_writer(tmp_path / "i.png", None) as writer:
        writer.write(buffer)
        buffer[:] = 0
        writer.finish()
    assert np.array_equal(np.asarray(Image.open(tmp_path / "i.png")), FRAMES[0])


@pytest.mark.parametrize("name", ["i.png", "v.gif", "frames"])
def test_a_failure_leaves_what_stood_there(tmp_path, name):
    make = {"i.png": image_writer, "frames": folder_writer}.get(name, lambda path, c: animation_writer(path, c, fps=8))
    if name != "frames":
        (tmp_path / name).write_bytes(b"old")
    before = list(tmp_path.iterdir())
    with pytest.raises(RuntimeError, match="decode failed"), make(tmp_path / name, None) as writer:
        writer.write(FRAMES)
        raise RuntimeError("decode failed")
    assert list(tmp_path.iterdir()) == before


def test_what_has_no_comment(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png")
    (tmp_path / "j.png").write_bytes(b"no image")
    for name in ("i.png", "j.png", "none.png", "."):
        assert read_image_comment(tmp_path / name) is None


def test_a_comment_that_stands_behind_the_picture(tmp_path):
    """As other programs write it."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt("comment", NASTY)
    Image.new("RGB", (8, 8)).save(tmp_path / "i.png", pnginfo=text)
    content = (tmp_path / "i.png").read_bytes()
    start, data = content.index(b"iTXt") - 4, content.index(b"IDAT") - 4
    chunk, end = content[start:data], content.index(b"IEND") - 4
    (tmp_path / "i.png").write_bytes(content[:start] + content[data:end] + chunk + content[end:])
    assert read_image_comment(tmp_path / "i.png") == NASTY


def test_a_comment_of_a_png_that_is_called_otherwise(tmp_path):
    """What a file is called says nothing of how its text is kept."""
    write(image_writer(tmp_path / "a.png", "猫 é"), FRAMES[:1])
    (tmp_path / "a.png").rename(tmp_path / "a.jpg")
    assert read_image_comment(tmp_path / "a.jpg") == "猫 é"
