"""What components need is read off headers, for any request and precision."""

import pytest
import torch
from helpers import SMALL, TINY

from kandinsky.checkpoint.locate import WeightPaths
from kandinsky.memory.needs import needs_from
from kandinsky.model.precision import EXACT, FAST
from kandinsky.video_shape import VideoShape

PATHS = WeightPaths(
    TINY / "kandinsky4_distil_512.pt", TINY / "text_encoder", TINY / "tokenizer", TINY / "vae", TINY / "scheduler"
)
SHAPE = VideoShape.from_request(1, 96, 64, model_set=SMALL)


def needs(*names, precision=EXACT, shape=SHAPE, **settings):
    return needs_from(PATHS, dict.fromkeys(names, torch.bfloat16), text_tokens=224, **settings)(shape, precision)


def test_only_what_is_asked_for_counts():
    assert list(needs("dit").components) == ["dit"]
    assert set(needs("dit", "vae", "text_embedder").components) == {"dit", "vae", "text_embedder"}
    assert needs("dit").vae_saving is None


def test_a_longer_video_needs_more():
    longer = VideoShape.from_request(2, 96, 64, model_set=SMALL)
    assert needs("dit", shape=longer).components["dit"].working > needs("dit").components["dit"].working


def test_float8_and_int8_need_less():
    assert sum(needs("dit", precision=FAST).components["dit"].blocks) < sum(needs("dit").components["dit"].blocks)
    plain, int8 = (needs("text_embedder", text_encoder_int8=int8).components["text_embedder"] for int8 in (False, True))
    assert sum(int8.blocks) == pytest.approx(sum(plain.blocks) / 2, rel=0.2)


def test_a_saving_decode_needs_less():
    found = needs("vae")
    assert found.vae_saving is not None
    assert found.component("vae", saving=True).working < found.component("vae", saving=False).working
