"""Pictures and videos of a call: what goes together, which size and length they mean, what is refused.

Whatever is said, it is accepted or refused with ValueError, and nothing is written.
"""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from helpers import SMALL
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from kandinsky.known.given import STRENGTHS
from kandinsky.output.inputs import Inputs, shape_and_given

WIDE, SQUARE = Image.new("RGB", (300, 200), "white"), Image.new("RGB", (50, 50), "red")
CLIP = np.full((20, 64, 96, 3), 9, np.uint8)
MASK = np.zeros((64, 96), bool)
MASK[:, :48] = True


def read(time_length=1, width=None, height=None, model_set=SMALL, **inputs):
    return shape_and_given(Inputs(**inputs), time_length, width, height, model_set=model_set)


def test_nothing_given():
    assert read()[1] is None
    assert (read()[0].width, read()[0].height) == (64, 64)


def test_the_picture_chooses_the_size():
    shape, found = read(image=WIDE)
    assert (shape.width, shape.height, shape.seconds) == (96, 64, 1)
    assert found.head.shape == (1, 64, 96, 3)
    assert found.marks["image"].name is None
    assert read(image=WIDE, width=96)[0] == shape
    assert read(image=WIDE, width=64, fit="contain")[1].head.shape == (1, 64, 64, 3)


def test_both_pictures():
    _, found = read(image=WIDE, last_image=SQUARE)
    assert found.last.shape == (64, 96, 3)
    assert set(found.marks) == {"image", "last_image"}


def test_the_video_chooses_the_length():
    shape, found = read(None, video=CLIP, strength=0.5)
    assert (shape.seconds, shape.num_frames, len(found.video)) == (2, 17, 17)
    assert read(1, video=CLIP, strength=1)[1].video.shape == (9, 64, 96, 3)
    assert read(None, video=CLIP, strength=1, model_set=replace(SMALL, max_seconds=1))[0].seconds == 1


def test_masks():
    assert read(0, image=WIDE, mask=MASK)[1].anew.shape == (1, 64, 96)
    assert read(1, video=CLIP, mask=MASK)[1].anew[0, 0].tolist() == [True] * 48 + [False] * 48
    whole = np.broadcast_to(MASK, (20, 64, 96))
    assert read(1, video=CLIP, mask=whole)[1].anew.shape == (9, 64, 96)
    assert read(None, video=CLIP, mask=whole)[1].anew.shape == (17, 64, 96)


def test_a_mask_is_cut_as_its_picture_is():
    mask = np.zeros((200, 300), np.uint8)
    mask[:, 150:] = 255
    anew = read(1, image=WIDE, mask=mask, width=64, height=64, fit="cover")[1].anew
    assert anew[0, 5].tolist() == [False] * 32 + [True] * 32


def test_the_same_pixels_have_the_same_mark(tmp_path):
    SQUARE.save(tmp_path / "a.png")
    marks = [read(image=given)[1].marks["image"] for given in (SQUARE, tmp_path / "a.png", np.asarray(SQUARE))]
    assert len({mark.sha256 for mark in marks}) == 1
    assert [mark.name for mark in marks] == [None, "a.png", None]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"mask": MASK}, "it is for image or video, and there is none"),
        ({"fit": "cover"}, "it is for pictures and videos"),
        ({"image": WIDE, "fit": "crop"}, "fit='crop': allowed are 'cover', 'contain', 'stretch'"),
        ({"strength": 0.5}, "strength=0.5: it is for video"),
        ({"video": CLIP}, r"video needs strength \(1.0, 0.75, 0.5, 0.25\), or mask"),
        ({"video": CLIP, "strength": 0}, "strength=0: allowed are 1.0, 0.75, 0.5, 0.25"),
        ({"video": CLIP, "strength": 0.6}, "strength=0.6: allowed are"),
        ({"video": CLIP, "strength": True}, "strength=True"),
        ({"video": CLIP, "strength": "0.5"}, "strength='0.5'"),
        ({"video": CLIP, "strength": float("nan")}, "strength=nan"),
        ({"video": CLIP, "image": WIDE, "strength": 1}, "allowed is one of them"),
        ({"video": CLIP, "strength": 1, "time_length": 3}, "video has 20 frames at 8 a second; time_length=3 needs 25"),
        ({"video": CLIP[:8], "strength": 1, "time_length": None}, "a second needs 9"),
        ({"video": CLIP[:17], "mask": np.broadcast_to(MASK, (19, 64, 96)), "time_length": 2}, "mask has 18 frames"),
        ({"video": CLIP[:17], "mask": np.broadcast_to(MASK, (12, 64, 96)), "time_length": 2}, "mask has 12 frames"),
        ({"video": CLIP, "mask": MASK[:, :64]}, "mask is 64x64: allowed are the proportions of what it is for, 96x64"),
        ({"video": CLIP, "mask": ~(MASK | ~MASK)}, "nothing white"),
        ({"last_image": WIDE, "time_length": 0}, "an image, which has no last frame"),
        ({"video": CLIP, "strength": 1, "time_length": 0}, "which is no video"),
        ({"image": WIDE, "time_length": 0}, "needs mask"),
        ({"image": WIDE, "width": 64, "height": 64}, "what is given is 300x200, which goes with 96x64"),
        ({"image": WIDE, "width": 65, "height": 64, "fit": "cover"}, "width=65"),
        ({"image": "no.png"}, "no such file"),
        ({"image": WIDE, "time_length": 64}, "time_length=64"),
    ],
)
def test_refused(asked, message):
    with pytest.raises(ValueError, match=message):
        read(**asked)


ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70), st.floats(), st.text(max_size=9), st.binary(max_size=4),
    st.just(object()), st.just([]), st.just({}), st.just(np.zeros((3, 3))), st.just(np.array(None)), st.just([WIDE, 1]),
)  # fmt: skip
RIGHT = {
    "image": st.sampled_from([WIDE, SQUARE]),
    "last_image": st.sampled_from([WIDE, SQUARE]),
    "video": st.sampled_from([CLIP, CLIP[:9], [SQUARE] * 10]),
    "mask": st.sampled_from([MASK, np.broadcast_to(MASK, (20, 64, 96)), SQUARE]),
    "strength": st.sampled_from([*STRENGTHS, 0.0]),
    "fit": st.sampled_from(["cover", "contain", "stretch"]),
    "time_length": st.sampled_from([0, 1, 2]),
    "width": st.sampled_from([64, 96]),
}


@st.composite
def arguments(draw):
    """Often few of them: of many, most do not go together."""
    most = draw(st.sampled_from([2, 5]))
    chosen = draw(st.lists(st.sampled_from(sorted(RIGHT)), unique=True, max_size=most))
    return {name: draw(ODD if draw(st.integers(0, 7)) == 0 else RIGHT[name]) for name in chosen}


@pytest.mark.slow
def test_whatever_is_said_is_accepted_or_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = Counter()

    @settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(arguments())
    def check(asked):
        try:
            shape, found = read(**asked)
        except ValueError:
            counts["refused"] += 1
            return
        counts["accepted"] += 1
        if found is not None:
            for clip in (found.head, found.video, found.anew, None if found.last is None else found.last[None]):
                assert clip is None or clip.shape[1:3] == (shape.height, shape.width)
            assert found.video is None or len(found.video) == shape.num_frames
            assert found.anew is None or len(found.anew) in (1, shape.num_frames)

    check()
    assert min(counts.values()) > 50, counts
    assert list(tmp_path.iterdir()) == []
