"""The README's picture, of one prompt."""

from benchmark_helpers import all_positive
from PIL import Image


def test_picture_and_figures(run, tmp_path):
    found = run("strip", "--out", str(tmp_path / "strip.png"))
    assert found["limit"] == 1
    assert found["as_asked"] == 1
    assert all_positive(found["limit"])
    picture = Image.open(tmp_path / "strip.png")
    assert picture.size == (6 * (128 + 4) - 4, 128 + 14 + 4)
    assert len(picture.getcolors(maxcolors=picture.width * picture.height)) > 100
