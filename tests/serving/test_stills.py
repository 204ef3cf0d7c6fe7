"""Pictures of a finished video: which frames they show, for each kind of file."""

import numpy as np
import pytest
from PIL import Image

from kandinsky.output.options import OutputOptions, open_writer, output_of
from kandinsky.serving.stills import COLUMNS, ROWS, TILE_WIDTH, spritesheet, thumbnail

FRAMES = 97
WIDTH, HEIGHT = 64, 32


def video(path, frames=FRAMES):
    """A file whose frames are grey, each as light as its number says."""
    output, path = output_of(path, OutputOptions(type="file"), is_image=False, model_fps=8)
    with open_writer(path, output, width=WIDTH, height=HEIGHT, comment=None) as writer:
        for number in range(frames):
            writer.write(np.full((1, HEIGHT, WIDTH, 3), 2 * number, np.uint8))
        writer.finish()
    return path


def lightness(image):
    return np.asarray(image.convert("L")).astype(float).mean()


@pytest.fixture(params=[".mp4", ".webm", ".mkv", ".gif", ".webp"])
def file(request, tmp_path):
    return video(tmp_path / f"video{request.param}")


def test_the_middle_frame(file):
    path = thumbnail(file)
    with Image.open(path) as image:
        assert (image.format, image.size) == ("WEBP", (WIDTH, HEIGHT))
        assert abs(lightness(image) - 2 * (FRAMES // 2)) < 4


def test_a_sheet(file):
    with Image.open(spritesheet(file)) as image:
        tile = (TILE_WIDTH, TILE_WIDTH * HEIGHT // WIDTH)
        assert (image.format, image.size) == ("JPEG", (tile[0] * COLUMNS, tile[1] * ROWS))
        seen = [
            lightness(image.crop((x, y, x + tile[0], y + tile[1])))
            for y in range(0, image.height, tile[1])
            for x in range(0, image.width, tile[0])
        ]
    last = COLUMNS * ROWS - 1
    assert np.abs(np.array(seen) - [2 * round(index * (FRAMES - 1) / last) for index in range(last + 1)]).max() < 4


def test_a_short_video_has_a_small_sheet(tmp_path):
    with Image.open(spritesheet(video(tmp_path / "video.mp4", frames=7))) as image:
        assert image.size == (TILE_WIDTH * 5, TILE_WIDTH // 2 * 2)


def test_they_are_made_once(tmp_path):
    file = video(tmp_path / "video.mp4", frames=3)
    first = thumbnail(file).stat().st_mtime_ns
    file.unlink()
    assert thumbnail(file).stat().st_mtime_ns == first


def test_a_file_that_is_no_video(tmp_path):
    file = tmp_path / "video.mp4"
    file.write_bytes(b"no video")
    with pytest.raises(OSError, match=r"^video\.mp4 cannot be read: ffmpeg ended with exit code \d+$"):
        thumbnail(file)
    assert [path.name for path in tmp_path.iterdir()] == ["video.mp4"]
