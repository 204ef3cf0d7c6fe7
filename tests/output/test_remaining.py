"""What is left of an interrupted generation, found out without weights."""

import pytest
import torch

from kandinsky.config import FLASH_512
from kandinsky.errors import RecordError
from kandinsky.output.record import Record
from kandinsky.output.remaining import remaining_of
from kandinsky.output.unfinished import Unfinished, save_unfinished

RECORD = Record(prompt="a cat", seed=3, width=64, height=64, time_length=1, fps=12, crf=7, codec="hevc", origin=None)


@pytest.fixture
def file(tmp_path):
    latents = torch.zeros(3, 8, 8, 16)
    return save_unfinished(
        Unfinished(latents=latents, record=RECORD, save_path=tmp_path / "v.mp4", metadata=False, vae=None)
    )


def test_everything_as_before(file, tmp_path):
    remaining = remaining_of(file, model_set=FLASH_512)
    assert remaining.path == tmp_path / "v.mp4"
    assert (remaining.output.fps, remaining.output.crf, remaining.output.codec) == (12, 7, "hevc")
    assert not remaining.output.metadata
    assert remaining.record == RECORD
    assert remaining.file == file


def test_what_is_said_wins(file, tmp_path):
    remaining = remaining_of(file, tmp_path / "w.webm", model_set=FLASH_512, fps=8, metadata=True)
    assert (remaining.output.fps, remaining.output.codec) == (8, "vp9")  # a webm has no hevc
    assert remaining.output.metadata
    assert remaining.record is not None
    assert (remaining.record.fps, remaining.record.codec) == (8, "vp9")


def test_latents_alone_need_a_target(tmp_path):
    latents = torch.zeros(1, 8, 8, 16)
    with pytest.raises(ValueError, match="save_path=None: these latents do not say where their result goes"):
        remaining_of(latents, model_set=FLASH_512)
    assert remaining_of(latents, tmp_path / "i.png", model_set=FLASH_512).record is None


@pytest.mark.parametrize("wrong", [torch.zeros(3, 8, 8), torch.zeros(0, 8, 8, 16), torch.zeros(3, 8, 8, 16).int()])
def test_what_are_no_latents(tmp_path, wrong):
    with pytest.raises(ValueError, match=r"allowed: floating-point \[T, H, W, C\], not empty"):
        remaining_of(wrong, tmp_path / "v.mp4", model_set=FLASH_512)


def test_a_damaged_file_and_none(file, tmp_path):
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(RecordError, match="is damaged"):
        remaining_of(file, model_set=FLASH_512)
    with pytest.raises(FileNotFoundError, match="no such file"):
        remaining_of(tmp_path / "gone", model_set=FLASH_512)
