"""What looks at inputs: it finds size and length, and a file that ends it or holds it up costs nothing else."""

import os
import signal
from dataclasses import replace

import pytest
from helpers import SMALL
from PIL import Image
from serving_kit import ASKED

from kandinsky.serving.checker import Checker, Look, looked_at

ASKS = replace(ASKED, inputs={"image": "i.png"})


@pytest.fixture
def look(tmp_path):
    Image.new("RGB", (96, 64)).save(tmp_path / "i.png")
    return Look(ASKS, tmp_path, sized=False, timed=True)


def test_the_size_is_chosen_unless_it_was_said(look):
    assert looked_at(look, SMALL) == replace(ASKS, width=96, height=64)
    with pytest.raises(ValueError, match="width=64, height=64: what is given is 96x64"):
        looked_at(replace(look, sized=True), SMALL)


@pytest.mark.slow
def test_its_process(look):
    """It imports PyTorch: a few seconds each time."""
    checker = Checker(SMALL)
    try:
        assert checker.check(look).width == 96
        with pytest.raises(ValueError, match="what is given"):
            checker.check(replace(look, sized=True))
        os.kill(checker._process.pid, signal.SIGKILL)
        checker._process.join()
        assert checker.check(look).width == 96  # started again
        checker._seconds = 0.0
        os.kill(checker._process.pid, signal.SIGSTOP)
        with pytest.raises(ValueError, match="more than 0 s"):
            checker.check(look)
        checker._seconds = 60.0
        assert checker.check(look).width == 96  # no late answer of before
    finally:
        checker.close()
    assert not checker._process.is_alive()
