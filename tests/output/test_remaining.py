"""What is left to do of an interrupted generation."""

import dataclasses

import pytest
import torch
from fakes import RECORD, SMALL_LATENTS

from kandinsky.config import FLASH_512
from kandinsky.errors import RecordError
from kandinsky.output.remaining import remaining_of
from kandinsky.output.unfinished import Unfinished, save_unfinished


def saved(path, **changes):
    """A file of latents whose result goes to `path`."""
    facts = {"latents": SMALL_LATENTS, "record": RECORD, "save_path": path, "metadata": True, "vae": None}
    return save_unfinished(Unfinished(**{**facts, **changes}))


def of(latents, save_path=None, **options):
    return remaining_of(latents, save_path, model_set=FLASH_512, **options)


def test_a_file_says_everything(tmp_path):
    file = saved(tmp_path / "v.mkv", record=dataclasses.replace(RECORD, fps=12, crf=30, codec="vp9"), metadata=False)
    found = of(file)
    assert torch.equal(found.latents, SMALL_LATENTS)
    assert (found.path, found.file) == (tmp_path / "v.mkv", file)
    assert (found.output.fps, found.output.crf, found.output.codec) == (12, 30, "vp9")
    assert found.output.metadata is False
    assert (found.record.prompt, found.record.codec) == ("a cat", "vp9")


def test_other_options_win(tmp_path):
    file = saved(tmp_path / "v.mp4")
    found = of(file, tmp_path / "w.mp4", fps=24, crf=40, metadata=False)
    assert found.path == tmp_path / "w.mp4"
    assert (found.output.fps, found.output.crf, found.output.codec) == (24, 40, "h264")
    assert (found.record.fps, found.record.crf) == (24, 40)  # as it will stand in the file
    assert of(file, codec="hevc").output.crf == 10  # the default of the new codec
    vp9 = saved(tmp_path / "x.mkv", record=dataclasses.replace(RECORD, crf=30, codec="vp9"))
    found = of(vp9, crf=40).output  # which is a quality of the codec that it was
    assert (found.crf, found.codec) == (40, "vp9")
    assert of(vp9, codec="vp9").output.crf == 30


@pytest.mark.parametrize(
    ("name", "expected"),
    [("w.mov", (5, "h264")), ("w.webm", (15, "vp9")), ("w.gif", (None, None)), ("f/", (None, None))],
)
def test_another_kind_of_file_has_its_own_encoding(tmp_path, name, expected):
    found = of(saved(tmp_path / "v.mp4", record=dataclasses.replace(RECORD, fps=12)), f"{tmp_path}/{name}")
    assert found.output.fps == 12
    assert (found.output.crf, found.output.codec) == expected


def test_a_folder_of_frames_stays_one(tmp_path):
    record = dataclasses.replace(RECORD, crf=None, codec=None)
    assert of(saved(tmp_path / "frames", record=record)).path == tmp_path / "frames"


def test_an_image(tmp_path):
    record = dataclasses.replace(RECORD, time_length=0, fps=None, crf=None, codec=None)
    found = of(saved(tmp_path / "i.png", latents=SMALL_LATENTS[:1], record=record))
    assert (found.path, found.output.fps) == (tmp_path / "i.png", None)
    with pytest.raises(ValueError, match=r"must end with one of \.png"):
        of(SMALL_LATENTS[:1], tmp_path / "v.mp4")


def test_latents_alone(tmp_path):
    found = of(SMALL_LATENTS, tmp_path / "v.mp4")
    assert (found.record, found.file, found.vae) == (None, None, None)
    assert (found.output.fps, found.output.crf, found.output.codec) == (8, 5, "h264")


def test_what_cannot_be_finished(tmp_path):
    for wrong in (SMALL_LATENTS[0], SMALL_LATENTS[:0], SMALL_LATENTS.int()):
        with pytest.raises(ValueError, match=r"allowed: floating-point \[T, H, W, C\], not empty"):
            of(wrong, tmp_path / "v.mp4")
    with pytest.raises(ValueError, match="save_path=None: these latents do not say where their result goes"):
        of(SMALL_LATENTS)
    with pytest.raises(ValueError, match="the folder '/nowhere' does not exist"):
        of(SMALL_LATENTS, "/nowhere/v.mp4")
    with pytest.raises(ValueError, match="fps=0: allowed is 1 to 120"):
        of(SMALL_LATENTS, tmp_path / "v.mp4", fps=0)
    with pytest.raises(ValueError, match="latents=3: allowed is a path of text"):
        of(3)
    for latents in (SMALL_LATENTS, saved(tmp_path / "v.mp4")):
        with pytest.raises(ValueError, match="save_path=3: allowed is a path of text"):
            of(latents, 3)


def test_files_that_are_none(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        of(tmp_path / "none.latents.safetensors")
    (tmp_path / "x").write_bytes(b"damaged")
    with pytest.raises(RecordError, match="x is damaged or was not saved by this library"):
        of(tmp_path / "x")
