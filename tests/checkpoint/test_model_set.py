"""A model set's own file: what it allows, and what is refused."""

import dataclasses
import json

import pytest
from checkpoint_helpers import POINTER

from kandinsky.checkpoint.model_set import NAME, read_model_set, write_model_set
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError

OWN = dataclasses.replace(FLASH_512, resolution=128, sizes=((64, 64), (96, 64)), max_seconds=1, text_tokens=24, fps=3)


@pytest.mark.parametrize("model_set", [OWN, FLASH_512], ids=["own", "published"])
def test_what_is_written_comes_back(tmp_path, model_set):
    assert read_model_set(tmp_path) is None
    write_model_set(tmp_path, model_set)
    assert read_model_set(tmp_path) == model_set


def test_pairs_are_height_and_width(tmp_path):
    """As files had sizes before."""
    write_model_set(tmp_path, OWN)
    values = json.loads((tmp_path / NAME).read_text()) | {"sizes": [[64, 96], [128, 64]]}
    (tmp_path / NAME).write_text(json.dumps(values))
    assert read_model_set(tmp_path).sizes == ((96, 64), (64, 128))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sizes": []}, r"sizes=\[\]: allowed are texts like '672x384', of multiples of 16"),
        ({"sizes": ["64x100"]}, "multiples of 16"),
        ({"sizes": ["64"]}, "allowed are texts"),
        ({"sizes": [[64]]}, "allowed are texts"),
        ({"fps": 0}, "fps=0: allowed is a whole number from 1"),
        ({"text_tokens": True}, "text_tokens=True"),
        ({"colour": 1}, "allowed and needed are the keys"),
    ],
)
def test_what_is_refused(tmp_path, change, message):
    write_model_set(tmp_path, OWN)
    values = json.loads((tmp_path / NAME).read_text()) | change
    (tmp_path / NAME).write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=message):
        read_model_set(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"), [("{", "not JSON"), ("[]", "needed are the keys"), (POINTER, "git-LFS")]
)
def test_what_is_no_model_set(tmp_path, content, message):
    (tmp_path / NAME).write_text(content)
    with pytest.raises(CheckpointError, match=rf"model_set\.json.*{message}"):
        read_model_set(tmp_path)


@pytest.mark.parametrize("change", [{"dit_file": "other.pt"}, {"spatial_compression": 16}, {"dit_repository": "a/b"}])
def test_what_the_file_does_not_hold_is_refused(tmp_path, change):
    """It would come back as the published one's."""
    with pytest.raises(ValueError, match=rf"{next(iter(change))}=.*cannot declare other than"):
        write_model_set(tmp_path, dataclasses.replace(OWN, **change))
    assert not any(tmp_path.iterdir())


def test_a_set_that_was_just_saved_goes_before(tmp_path):
    write_model_set(tmp_path, OWN)
    (tmp_path / SAVED).mkdir()
    assert read_model_set(tmp_path) == OWN
    write_model_set(tmp_path / SAVED, FLASH_512)
    assert read_model_set(tmp_path) == FLASH_512
