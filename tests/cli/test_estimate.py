"""What a request will take where there is no GPU."""

import time
from types import SimpleNamespace

import pytest
import torch
from helpers import SMALL

from kandinsky.cli import estimate
from kandinsky.cli.estimate import Forecast, in_words, operations_of, rate_of
from kandinsky.config import PUBLISHED_DIT
from kandinsky.video_shape import VideoShape

REAL = VideoShape.from_request(12, 672, 384)
IMAGE = VideoShape.from_request(0, 672, 384)


class Published:
    """A DiT of the published sizes without weights."""

    config, device, dtype = PUBLISHED_DIT, torch.device("cpu"), torch.float32


def said(shape, rate):
    lines = []
    forecast = Forecast(Published(), shape, text_tokens=224, steps=4, rate=rate, say=lines.append)
    return lines, forecast


def test_operations_of_the_published_model():
    """25200 + 224 tokens: 2 x 113 M weights of a block's Linears, 42 blocks, and attention in 21 of them; 4 steps."""
    tokens = 25 * 24 * 42 + 224
    expected = 4 * (42 * 2 * tokens * 113246208 + 21 * 4 * tokens**2 * 3072)
    assert operations_of(PUBLISHED_DIT, REAL, text_tokens=224, steps=4) == pytest.approx(expected)


def test_the_real_size_on_a_cpu_is_said_before_it_starts_and_an_image_offered():
    lines, _ = said(REAL, rate=1e11)
    (line,) = lines
    assert line.startswith("672x384, 12 s on cpu: about 4.5 h to sample")
    assert "--time-length 0 makes an image" in line


def test_an_image_is_not_offered_for_an_image():
    lines, _ = said(IMAGE, rate=1e11)
    assert "--time-length" not in lines[0]


def test_the_first_step_tells_more(monkeypatch):
    lines, forecast = said(REAL, rate=1e16)
    assert lines == []
    now = time.perf_counter()
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: now + 300)
    for step in (1, 2, 3, 4):
        forecast(step, 4, torch.zeros(1))
    assert lines == ["the first of 4 steps took 5 min: about 15 min more to sample"]


def test_what_is_short_is_not_worth_a_word():
    lines, forecast = said(REAL, rate=1e16)
    forecast(1, 4, torch.zeros(1))
    assert lines == []


def test_words():
    assert [in_words(seconds) for seconds in (50, 720, 12600)] == ["50 s", "12 min", "3.5 h"]


def test_the_rate_is_measured(pipe):
    assert 1e6 < rate_of(pipe.dit) < 1e15
    shape = VideoShape.from_request(0, 64, 64, model_set=SMALL)
    assert operations_of(pipe.dit.config, shape, text_tokens=224, steps=4) > 0


def test_a_product_that_was_held_up_does_not_count(pipe, monkeypatch):
    """On a busy machine some are, by many times what they take."""
    clock = iter([0.0, 5.0, 5.0, 6.0, 6.0, 6.5, 6.5, 9.0])
    monkeypatch.setattr(estimate, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    config = pipe.dit.config
    assert rate_of(pipe.dit) == 2 * estimate.PROBE_ROWS * config.model_dim * config.ff_dim / 0.5
