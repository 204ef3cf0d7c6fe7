"""Images, animations and folders of frames, with the record inside."""

import numpy as np
import pytest
from PIL import Image

from kandinsky.output.image import FIRST_FRAME, animation_writer, folder_writer, image_writer, read_image_comment

COMMENT = '{"prompt": "naïve 猫 \\" 😀"}'


def frames(count):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, 8, 12, 3), dtype=np.uint8)


def written(writer, count):
    with writer:
        for part in np.array_split(frames(count), min(count, 2)):
            writer.write(part)
        writer.finish()
    assert writer.num_frames == count


@pytest.mark.parametrize("ending", [".png", ".jpg", ".webp"])
@pytest.mark.parametrize("comment", [COMMENT, None])
def test_one_image(tmp_path, ending, comment):
    path = tmp_path / f"i{ending}"
    written(image_writer(path, comment), 1)
    assert Image.open(path).size == (12, 8)
    assert read_image_comment(path) == comment
    if ending == ".png":
        assert np.array_equal(np.asarray(Image.open(path)), frames(1)[0])


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_an_animation(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    written(animation_writer(path, COMMENT, fps=8), 5)
    with Image.open(path) as image:
        assert image.n_frames == 5
    assert read_image_comment(path) == COMMENT


def test_a_folder_of_frames(tmp_path):
    written(folder_writer(tmp_path / "f", COMMENT), 3)
    files = sorted((tmp_path / "f").iterdir())
    assert [file.name for file in files] == [FIRST_FRAME, "00001.png", "00002.png"]
    assert all(read_image_comment(file) == COMMENT for file in files)
    assert np.array_equal(np.stack([np.asarray(Image.open(file)) for file in files]), frames(3))


def test_without_finish_nothing_is_left(tmp_path):
    with image_writer(tmp_path / "i.png", None) as writer:
        writer.write(frames(1))
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_image_has_no_comment(tmp_path):
    (tmp_path / "i.png").write_bytes(b"nothing")
    assert read_image_comment(tmp_path / "i.png") is None
