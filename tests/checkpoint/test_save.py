"""What is saved loads again as it was, also in the place where it came from; an interruption costs nothing."""

import dataclasses
import json

import pytest
import torch
from checkpoint_helpers import CPU, NAME, cut, shard, tiny_copy
from helpers import SMALL

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.locate import locate
from kandinsky.checkpoint.model_set import read_model_set
from kandinsky.checkpoint.save import save_model_set
from kandinsky.config import FLASH_512
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.components import load_text_encoder, load_vae

PARTS = ("dit", "text_encoder", "vae")


def parts_of(pipe, **changes):
    text = pipe.text_encoder
    return {
        "dit": pipe.dit,
        "t5": text.model,
        "tokenizer": text.tokenizer,
        "autoencoder": pipe.vae.autoencoder,
        "schedule": pipe.parts.schedule,
        "model_set": pipe.model_set,
    } | changes


def tensors(folder):
    """All of a set, in float32."""
    paths = locate(folder, model_set=FLASH_512, given={}, local_files_only=True, revision={})
    opened = {name: open_checkpoint(getattr(paths, name)) for name in PARTS}
    return {(part, key): file.tensor(key, CPU).float() for part, file in opened.items() for key in file.shapes}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def loaded(folder):
    return get_T2V_pipeline("cpu", cache_dir=folder, local_files_only=True, progress=False)


@pytest.fixture(scope="module")
def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "new"
    save_model_set(folder, **parts_of(pipe))
    return folder


def test_saved_weights_are_those_that_were_loaded(saved, small_weights):
    assert same(tensors(saved), tensors(small_weights))


def test_a_saved_set_knows_what_it_was_trained_for(saved, pipe):
    assert read_model_set(saved) == pipe.model_set == SMALL
    assert loaded(saved).model_set == SMALL


def test_files_are_those_of_the_libraries(saved, small_weights):
    config = json.loads((saved / "vae" / "config.json").read_text())
    theirs = json.loads((small_weights / "vae" / "config.json").read_text())
    assert config["_class_name"] == "AutoencoderKLCogVideoX"
    assert {name: config[name] for name in theirs if not name.startswith("_")} == {
        name: value for name, value in theirs.items() if not name.startswith("_")
    }
    encoder = load_text_encoder(
        saved / "text_encoder", saved / "tokenizer", text_tokens=8, device=CPU, dtype=torch.float32
    )
    assert torch.isfinite(encoder("a cat")).all()
    assert load_vae(saved / "vae", device=CPU, dtype=torch.float32).autoencoder.config.scaling_factor == 0.7


def test_into_the_folder_that_it_was_loaded_from(tmp_path):
    """Shards, the `.pt` and its copies are gone, what is there is the same; and once more, from what was saved."""
    folder = tiny_copy(tmp_path / "w")
    shard(folder / "text_encoder")
    (folder / "text_encoder" / "model.fp16.safetensors").write_bytes(b"old")
    (folder / f"{NAME}_fast.safetensors").write_bytes(b"old")
    (folder / "video.mp4").touch()
    before = tensors(folder)
    for _ in range(2):
        save_model_set(folder, **parts_of(loaded(folder)))
        assert same(tensors(folder), before)
        names = {path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if not path.name.startswith(".")}
        assert {f"{NAME}.safetensors", "text_encoder/model.safetensors", "tokenizer/spiece.model", "video.mp4"} <= names
        assert not names & {f"{NAME}.pt", f"{NAME}_fast.safetensors", "text_encoder/model.safetensors.index.json"}
        assert not [name for name in names if "-of-" in name or "fp16" in name or "model_set" in name]


class FullDisk:
    """An autoencoder whose writing fails."""

    def save_config(self, folder):
        (folder / "config.json").write_text("{}")

    def state_dict(self):
        raise OSError("no space left on device")


def test_a_full_disk_costs_nothing(pipe, tmp_path):
    folder = tiny_copy(tmp_path / "w")
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(OSError, match="no space left"):
        save_model_set(folder, **parts_of(pipe, autoencoder=FullDisk()))
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files


def test_another_set_in_its_place(pipe, tmp_path):
    """Its own declaration, configuration and tokenizer take the place of those of the other."""
    folder = tiny_copy(tmp_path / "w")
    (folder / "model_set.json").write_text("damaged")
    (folder / "tokenizer" / "added_tokens.json").write_text('{"cat": 3}')
    cut(folder / "vae" / "diffusion_pytorch_model.safetensors")
    save_model_set(folder, **parts_of(pipe))
    assert read_model_set(folder) == SMALL
    assert not (folder / "tokenizer" / "added_tokens.json").exists()
    assert loaded(folder).model_set == SMALL


def test_a_set_that_cannot_be_declared(pipe, tmp_path):
    other = dataclasses.replace(SMALL, temporal_compression=8)
    with pytest.raises(ValueError, match=r"temporal_compression=8: model_set\.json cannot declare other than 4"):
        save_model_set(tmp_path / "w", **parts_of(pipe, model_set=other))
    assert not (tmp_path / "w").exists()
