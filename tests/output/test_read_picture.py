"""Pictures in every form that a call takes, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from kandinsky.output.read_picture import read_mask, read_picture

RED = np.zeros((4, 6, 3), np.uint8)
RED[..., 0] = 255


def pixels(given):
    return np.array(read_picture(given, "image"))


@pytest.mark.parametrize(
    "given",
    [
        RED, RED[None], torch.from_numpy(RED), RED / 255.0, torch.from_numpy(RED).movedim(-1, 0),
        torch.from_numpy(RED).movedim(-1, 0)[None] / 255, np.concatenate((RED, RED[..., :1]), -1), Image.fromarray(RED),
    ],
)  # fmt: skip
def test_the_same_picture_in_every_form(given):
    assert (pixels(given) == RED).all()


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr", "I;16", "LA", "RGBA"])
def test_modes(mode):
    rgb = Image.new("RGB", (6, 4), "white")
    white = Image.new(mode, (6, 4), 65535) if mode == "I;16" else rgb.convert(mode)
    assert (pixels(white) == 255).all()


def test_files(tmp_path):
    for ending in ("png", "webp", "bmp", "tif"):
        path = tmp_path / f"a b.{ending}"
        Image.fromarray(RED).save(path, **({"lossless": True} if ending == "webp" else {}))
        assert (pixels(path) == RED).all()
        assert (pixels(str(path)) == RED).all()


def test_a_photograph_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held upright
    Image.fromarray(RED).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg", "image").size == (4, 6)


def test_transparency_is_laid_over_black():
    clear = np.concatenate((RED, np.full((4, 6, 1), 51, np.uint8)), -1)
    assert (pixels(Image.fromarray(clear)) == [51, 0, 0]).all()
    assert (pixels(clear) == [51, 0, 0]).all()


def test_masks():
    white = np.zeros((4, 6), bool)
    white[0] = True
    for given in (white, torch.from_numpy(white), white[..., None], (white * 255).astype(np.uint8)):
        found = read_mask(given, "mask")
        assert found.mode == "L"
        assert (np.array(found) == white * 255).all()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (7, "image=7: allowed is a path"),
        ("no.png", "image='no.png': no such file"),
        ("a\0.png", "image="),
        (np.zeros((5, 6, 2), np.uint8), r"image is uint8 \[1, 5, 6, 2\]"),
        (np.zeros((4, 0, 3), np.uint8), r"image is uint8 \[4, 0, 3\]"),
        (np.zeros((4, 6, 3), np.int64), "image is int64"),
        (np.full((4, 6, 3), 1.5), "image: numbers that are not whole must be from 0 to 1"),
        (np.full((4, 6, 3), np.nan), "from 0 to 1"),
    ],
)
def test_what_is_no_picture(given, message):
    with pytest.raises(ValueError, match=message):
        read_picture(given, "image")


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n", None])
def test_damaged_files(tmp_path, content):
    path = tmp_path / "a.png"
    if content is None:
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"^image=.*a.png"):
        read_picture(path, "image")


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ValueError, match="is no picture that can be read"):
        read_picture(tmp_path, "image")
