"""What an extension's call refuses: before a model runs, and with nothing written."""

import numpy as np
import pytest

CLIP = np.zeros((9, 64, 64, 3), np.uint8)


@pytest.mark.parametrize(
    ("video", "changed", "message"),
    [
        (CLIP, {"seconds": 0}, "seconds=0: allowed is 1 to"),
        (CLIP, {"seconds": 1.5}, "seconds=1.5"),
        (CLIP, {"overlap": 0}, "overlap=0: allowed is 1 to"),
        (CLIP[:8], {}, "overlap=1 needs 9"),
        (CLIP, {"text": ["a cat", "a dog"]}, "text="),
        (CLIP, {"seed": -1}, "seed=-1"),
        (CLIP, {"fit": "best"}, "fit='best'"),
        (CLIP, {"width": 96}, "goes with 64x64"),
        (CLIP, {"save_path": "v.gif"}, "allowed are video files"),
        (CLIP, {"save_path": None}, "save_path=None"),
        ("nothing.mp4", {}, "no such file"),
        (None, {}, "video=None"),
    ],
)
def test_wrong_arguments_leave_nothing(pipe, tmp_path, monkeypatch, video, changed, message):
    monkeypatch.chdir(tmp_path)
    asked = {"text": "a cat", "save_path": "v.mp4", "seconds": 1, **changed}
    with pytest.raises(ValueError, match=message):
        pipe.extend(video, **asked, on_step=lambda *_: pytest.fail("a model ran"))
    assert list(tmp_path.iterdir()) == []


def test_a_callback_is_a_function(pipe, tmp_path):
    with pytest.raises(ValueError, match="on_step=1"):
        pipe.extend(CLIP, "a cat", tmp_path / "v.mp4", seconds=1, on_step=1)
