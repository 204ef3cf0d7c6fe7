"""The converted copy of the DiT: whole, equal, and of the file that it was made of."""

import pytest
import torch
from checkpoint_helpers import CPU, NAME, dit_state, retrained
from helpers import just_saved
from safetensors.torch import load_file

from kandinsky.checkpoint.convert import convert
from kandinsky.checkpoint.dit_file import dit_in
from kandinsky.checkpoint.files import TorchFile
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_dit
from kandinsky.model.precision import EXACT, FAST
from kandinsky.model.sizes import is_quantised


def published(folder, state=None):
    """A folder in which only the DiT stands."""
    torch.save(dit_state() if state is None else state, folder / f"{NAME}.pt")
    return folder


def converted(folder, precision=EXACT):
    return convert(folder, precision=precision, device=CPU, progress=False)


def test_copy_is_equal_and_preferred(tmp_path):
    path = converted(published(tmp_path))
    assert path == dit_in(tmp_path, FLASH_512) == tmp_path / f"{NAME}.safetensors"
    copy, original = load_file(path), dit_state()
    assert original.keys() == copy.keys()
    assert all(torch.equal(copy[name], value) and copy[name].dtype == value.dtype for name, value in original.items())
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"{NAME}.pt", path.name]


def test_a_copy_of_retrained_weights_takes_the_place_of_an_old_one(tmp_path):
    converted(published(tmp_path))
    other = retrained(dit_state())
    published(tmp_path, other)
    with pytest.warns(UserWarning, match="is not a copy"):
        assert dit_in(tmp_path, FLASH_512).suffix == ".pt"
    path = converted(tmp_path)
    assert dit_in(tmp_path, FLASH_512) == path
    assert all(torch.equal(value, other[name]) for name, value in load_file(path).items())


def test_the_dit_that_was_just_saved_is_the_one_to_convert(tmp_path):
    """Its parts are put in their places first: the old file is none of the set any more."""
    weights = just_saved(published(tmp_path))
    published(weights, retrained(dit_state()))
    path = converted(weights)
    assert path == dit_in(weights, FLASH_512) == weights / f"{NAME}.safetensors"
    assert all(torch.equal(value, dit_state()[name]) for name, value in load_file(path).items())
    assert not (weights / SAVED).exists()


def test_a_file_in_a_wrapper_is_converted_without_it(tmp_path):
    state = {f"module.{name}": value for name, value in dit_state().items() if not name.startswith("rope")}
    path = converted(published(tmp_path, {"ema": state, "step": 3}))
    assert load_file(path).keys() == dit_state().keys()
    dit = load_dit(open_checkpoint(path), device=CPU, dtype=torch.float32)
    assert all(torch.equal(value, dit_state()[name].float()) for name, value in dit.state_dict().items())


def test_a_failure_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(TorchFile, "tensor", lambda *_arguments: 1 / 0)
    before = sorted(published(tmp_path).iterdir())
    with pytest.raises(ZeroDivisionError):
        converted(tmp_path)
    assert sorted(tmp_path.iterdir()) == before


def test_without_the_published_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"kandinsky4_distil_512\.pt not found"):
        converted(tmp_path)


def test_float8_copy(tmp_path):
    path = converted(published(tmp_path), FAST)
    assert dit_in(tmp_path, FLASH_512, FAST) == path == tmp_path / f"{NAME}_fast.safetensors"
    assert dit_in(tmp_path, FLASH_512) == tmp_path / f"{NAME}.pt"
    checkpoint = open_checkpoint(path)
    assert is_quantised(checkpoint.shapes)
    name = "transformer_blocks.0.1.feed_forward.in_layer.weight"
    original = dit_state()[name].float()
    values, scale = checkpoint.tensor(name, CPU), checkpoint.tensor(name.replace("weight", "scale"), CPU)
    assert (values.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, torch.float32, (1, 512))
    assert (values.float() * scale.T - original).norm() < 0.04 * original.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_other_dtypes_on_disk(tmp_path, dtype):
    """The exact copy keeps them; float8 comes from bfloat16, as at load."""
    state = {name: value.to(dtype) for name, value in dit_state().items()}
    published(tmp_path, state)
    assert {value.dtype for value in load_file(converted(tmp_path)).values()} == {dtype}
    name = "transformer_blocks.0.1.feed_forward.in_layer.weight"
    values = open_checkpoint(converted(tmp_path, FAST)).tensor(name, CPU)
    assert torch.equal(values.float(), FAST.quantise(state[name].bfloat16())[0].float())


def test_published_file_that_is_quantised_is_not_converted(tmp_path):
    scale = {"transformer_blocks.0.0.self_attention.to_query_key_value.scale": torch.ones(1, 384)}
    with pytest.raises(CheckpointError, match="is quantised already"):
        converted(published(tmp_path, dit_state() | scale))
