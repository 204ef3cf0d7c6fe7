"""The folder of an unfinished extension, and what is refused of it."""

import json

import numpy as np
import pytest
import torch
from helpers import SMALL

from kandinsky.errors import RecordError
from kandinsky.extend.pieces import FILE, Pieces, folder_of, read_asked
from kandinsky.extend.plan import extension_of
from kandinsky.output.record import Record

CLIP = np.zeros((9, 64, 64, 3), np.uint8)
RECORD = Record(
    prompt="a cat", seed=1, width=64, height=64, time_length=2, fps=8, crf=5, codec="h264", origin=None
)  # fmt: skip


def extension(folder, **asked):
    settings = {"seconds": 20, "model_set": SMALL, "seed": 1, **asked}
    return extension_of(CLIP, "a cat", folder / "v.mp4", **settings)


def test_what_is_saved_is_loaded(tmp_path):
    pieces = Pieces(extension(tmp_path))
    pieces.begin(RECORD, "weights")
    latents = torch.randn(3, 8, 8, 16, dtype=torch.float64)
    assert pieces.finished() == [False, False]
    pieces.save(2, latents)
    assert pieces.finished() == [False, True]
    assert torch.equal(Pieces(extension(tmp_path)).load(2), latents)
    assert pieces.load(1) is None
    found = read_asked(folder_of(tmp_path / "v.mp4"))
    assert (found["asked"]["seconds"], found["weights"]) == (20, "weights")
    assert Record.from_json(found["record"], "it") == RECORD
    pieces.discard()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", [{"seconds": 19}, {"seed": 2}, {"overlap": 1, "fit": "cover"}])
def test_another_one_is_refused(tmp_path, asked):
    Pieces(extension(tmp_path)).begin(RECORD, None)
    with pytest.raises(ValueError, match="another extension is unfinished there"):
        Pieces(extension(tmp_path, **asked))


@pytest.mark.parametrize("content", ["", "{}", '{"asked": 1, "record": "x"}', json.dumps({"asked": {}, "record": 1})])
def test_damaged(tmp_path, content):
    (tmp_path / FILE).write_text(content)
    with pytest.raises(RecordError, match="no folder of an unfinished extension"):
        read_asked(tmp_path)
