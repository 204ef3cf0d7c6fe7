"""Arguments of an extension: how it is cut into pieces, and what is refused before a model runs."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kandinsky.extend.plan import extension_of

CLIP = np.zeros((17, 64, 96, 3), np.uint8)


def plan(video=CLIP, text="a cat", save_path="v.mp4", **asked):
    return extension_of(video, text, save_path, **{"seconds": 3, "model_set": SMALL, "seed": 1, **asked})


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(1, 200), st.integers(1, 2), st.integers(2, 63))
def test_pieces_add_up(seconds, overlap, longest):
    if overlap >= longest:
        return
    made = plan(seconds=seconds, overlap=overlap, model_set=replace(SMALL, max_seconds=longest))
    assert sum(piece.shape.seconds - overlap for piece in made.pieces) == seconds
    assert all(piece.shape.seconds <= longest for piece in made.pieces)
    assert [piece.seed for piece in made.pieces] == list(range(1, 1 + len(made.pieces)))
    assert made.known_frames == 8 * overlap + 1


def test_the_size_is_the_videos():
    assert (plan().pieces[0].shape.width, plan().pieces[0].shape.height) == (96, 64)
    assert plan(width=64, height=64, fit="contain").pieces[0].shape.width == 64


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"seconds": 0}, "seconds=0: allowed is 1 to 3600"),
        ({"seconds": 1.5}, "seconds=1.5: must be a whole number"),
        ({"overlap": 0}, "overlap=0: allowed is 1"),
        ({"overlap": 63}, "overlap=63: allowed is 1 to 62"),
        ({"overlap": 3}, "video has 17 frames at 8 a second; overlap=3 needs 25"),
        ({"text": ["a cat"]}, r"text=\['a cat'\]: allowed is a string"),
        ({"text": 3}, "text=3"),
        ({"seed": -1}, "seed=-1"),
        ({"seed": 2**63 - 1}, "seed="),
        ({"save_path": "v.gif"}, "save_path='v.gif': allowed are video files"),
        ({"save_path": None}, "save_path=None"),
        ({"width": 64, "height": 64}, "what is given is 96x64, which goes with 96x64"),
        ({"fit": "crop"}, "fit='crop': allowed are"),
        ({"video": CLIP[:0]}, "video="),
        ({"video": "no.mp4"}, "video='no.mp4': no such file"),
    ],
)
def test_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        plan(**asked)
