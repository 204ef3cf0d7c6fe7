"""The README's pictures of what begins from pictures and videos."""

import pytest
from PIL import Image


@pytest.mark.slow
def test_pictures_and_figures(run, tmp_path):
    found = run("known_strip", "--out", str(tmp_path))
    assert found["as_asked"] == found["limit"] == 1
    sizes = {name: Image.open(tmp_path / f"known_{name}.png").size for name in ("image", "video", "extend")}
    assert sizes == {"image": (7 * 132 - 4, 146), "video": (6 * 132 - 4, 4 * 146), "extend": (6 * 132 - 4, 2 * 146)}
