"""Which file is the DiT: a copy only if it is whole and of the weights that stand beside it."""

import warnings

import pytest
import torch
from checkpoint_helpers import DIT, NAME, cut, dit_state, retrained
from safetensors.torch import save_file

from kandinsky.checkpoint.dit_file import converted_file, copy_metadata, dit_in, forms_of
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512
from kandinsky.model.precision import EXACT, FAST


@pytest.fixture
def folder(tmp_path):
    """The published file and its two copies, with one tensor for each."""
    return made(tmp_path, 1.0)


def made(folder, value):
    torch.save({"w": torch.full((300,), value)}, folder / f"{NAME}.pt")
    for precision in (EXACT, FAST):
        copy(folder, precision)
    return folder


def copy(folder, precision):
    said = copy_metadata(folder / f"{NAME}.pt")
    save_file({"w": torch.zeros(3)}, converted_file(folder, FLASH_512, precision), metadata=said)


def found(folder, precision=EXACT):
    return dit_in(folder, FLASH_512, precision).relative_to(folder).as_posix()


def test_copies_are_preferred(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert (found(folder), found(folder, FAST)) == (f"{NAME}.safetensors", f"{NAME}_fast.safetensors")
        (folder / f"{NAME}_fast.safetensors").unlink()
        assert found(folder, FAST) == f"{NAME}.safetensors"
        (folder / f"{NAME}.safetensors").unlink()
        assert found(folder) == found(folder, FAST) == f"{NAME}.pt"
        (folder / f"{NAME}.pt").unlink()
        assert found(folder) == f"{NAME}.pt"


def test_copies_of_other_weights_of_the_same_size_are_not_taken(folder):
    size = (folder / f"{NAME}.pt").stat().st_size
    torch.save({"w": torch.full((300,), 2.0)}, folder / f"{NAME}.pt")
    assert (folder / f"{NAME}.pt").stat().st_size == size
    with pytest.warns(
        UserWarning, match=rf"{NAME}\.safetensors is not a copy of {NAME}\.pt as it is now and is not us"
    ):
        assert found(folder) == f"{NAME}.pt"
    copy(folder, EXACT)
    with pytest.warns(UserWarning, match=rf"{NAME}_fast\.safetensors is not a copy of {NAME}\.pt as it is now"):
        assert found(folder, FAST) == f"{NAME}.safetensors"


def test_copies_outlast_the_file_that_they_are_of(folder):
    (folder / f"{NAME}.pt").unlink()
    assert (found(folder), found(folder, FAST)) == (f"{NAME}.safetensors", f"{NAME}_fast.safetensors")


def test_a_float8_copy_is_not_taken_for_other_exact_weights(folder):
    """As `save_pretrained` writes them, in the place of the published file."""
    (folder / f"{NAME}.pt").unlink()
    save_file({"w": torch.ones(3)}, folder / f"{NAME}.safetensors")
    with pytest.warns(UserWarning, match=rf"_fast\.safetensors is not a copy of {NAME}\.safetensors as it is now"):
        assert found(folder, FAST) == f"{NAME}.safetensors"


@pytest.mark.parametrize("kept", [0, 100, -1])
def test_a_damaged_copy_is_not_taken(folder, kept):
    cut(folder / f"{NAME}.safetensors", kept)
    with pytest.warns(UserWarning, match=r"\.safetensors is damaged and is not used; `kandinsky convert` makes a new"):
        assert found(folder) == f"{NAME}.pt"
    (folder / f"{NAME}.pt").unlink()
    assert found(folder) == f"{NAME}.safetensors"  # its loader says so


def test_a_copy_that_does_not_say_of_what_is_not_taken(folder):
    save_file({"w": torch.zeros(3)}, folder / f"{NAME}.safetensors")
    with pytest.warns(UserWarning, match="is not a copy"):
        assert found(folder) == f"{NAME}.pt"


def test_one_changed_row_of_a_real_file(tmp_path):
    path = tmp_path / f"{NAME}.pt"
    torch.save(dit_state(), path)
    copy(tmp_path, EXACT)
    assert found(tmp_path) == f"{NAME}.safetensors"
    size = path.stat().st_size
    torch.save(retrained(dit_state()), path)
    assert path.stat().st_size == size
    with pytest.warns(UserWarning, match="is not a copy"):
        assert found(tmp_path) == f"{NAME}.pt"


def test_a_set_that_was_just_saved_goes_before(folder):
    (folder / SAVED).mkdir()
    assert found(folder) == f"{NAME}.safetensors"
    (folder / SAVED / f"{NAME}.safetensors").symlink_to(DIT)
    assert found(folder) == found(folder, FAST) == f"{SAVED}/{NAME}.safetensors"


def test_other_forms():
    assert forms_of("a.pt") == ["a.safetensors", "a_fast.safetensors"]
    assert forms_of("a.safetensors") == ["a.pt", "a_fast.safetensors"]
    assert forms_of("model_set.json") == []
