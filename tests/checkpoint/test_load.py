"""Loading weights, and the errors of files that do not fit."""

import shutil

import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.load import open_checkpoint, read_tensors
from kandinsky.config import PUBLISHED_DIT
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_dit, load_text_encoder, load_vae
from kandinsky.model.dit import DiT
from kandinsky.model.sizes import dit_config

CPU = torch.device("cpu")
DIT = TINY / "kandinsky4_distil_512.pt"
FLOAT32 = {"device": CPU, "dtype": torch.float32}


@pytest.fixture(scope="module")
def state():
    return torch.load(DIT, weights_only=True)


def saved(state, path):
    torch.save(state, path)
    return path


def test_pt_and_safetensors_load_the_same(state, tmp_path):
    save_file(state, tmp_path / "dit.safetensors")
    from_pt, from_safetensors = (
        load_dit(open_checkpoint(path), **FLOAT32) for path in (DIT, tmp_path / "dit.safetensors")
    )
    for (name, value), (other, same) in zip(
        from_pt.state_dict().items(), from_safetensors.state_dict().items(), strict=True
    ):
        assert name == other
        assert value.dtype == torch.float32
        assert torch.equal(value, same)
        assert torch.equal(value, state[name].float())


def test_weights_need_no_gradient():
    assert not any(parameter.requires_grad for parameter in load_dit(open_checkpoint(DIT), **FLOAT32).parameters())


def test_sizes_are_read_off_the_checkpoint():
    config = dit_config(open_checkpoint(DIT))
    assert (config.model_dim, config.ff_dim, config.num_blocks, config.in_text_dim) == (128, 512, 2, 64)
    assert config.axes_dims == (16, 24, 24)


def test_published_sizes():
    with torch.device("meta"):
        dit = DiT(PUBLISHED_DIT)
    assert round(sum(parameter.numel() for parameter in dit.parameters()) / 1e9, 3) == 5.570


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights not found: .*nothing\.pt"):
        open_checkpoint(tmp_path / "nothing.pt")


@pytest.mark.parametrize("kept", [0, 10, 1000, 2_000_000])
def test_truncated_pt(tmp_path, kept):
    (tmp_path / "cut.pt").write_bytes(DIT.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.pt is truncated or not a PyTorch state dict"):
        load_dit(open_checkpoint(tmp_path / "cut.pt"), **FLOAT32)


@pytest.mark.parametrize("kept", [0, 7, 1000, 200_000])
def test_truncated_safetensors(tmp_path, kept):
    whole = (TINY / "text_encoder" / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:kept])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is truncated or not a safetensors file"):
        open_checkpoint(tmp_path / "cut.safetensors")


def test_not_a_state_dict(tmp_path):
    with pytest.raises(CheckpointError, match="is not a state dict"):
        open_checkpoint(saved([1, 2], tmp_path / "list.pt"))


def test_no_code_is_run(tmp_path):
    class Harmful:
        def __reduce__(self):
            return print, ("executed",)

    torch.save(Harmful(), tmp_path / "harmful.pt")
    with pytest.raises(CheckpointError, match="not a PyTorch state dict"):
        open_checkpoint(tmp_path / "harmful.pt")


def test_another_model(tmp_path):
    wrong = saved({"weight": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"other\.pt is not a Kandinsky 4 DiT: key 'rope_embeddings\.args_0'"):
        load_dit(open_checkpoint(wrong), **FLOAT32)


def test_keys_that_do_not_fit(state, tmp_path):
    gone, changed = "out_layer.norm.bias", "transformer_blocks.1.0.feed_forward.out_layer.bias"
    wrong = {name: value for name, value in state.items() if name != gone}
    wrong |= {"extra.weight": torch.zeros(1), changed: torch.zeros(7)}
    with pytest.raises(CheckpointError) as caught:
        load_dit(open_checkpoint(saved(wrong, tmp_path / "wrong.pt")), **FLOAT32)
    message = str(caught.value)
    assert "wrong.pt does not fit the model" in message
    assert "1 missing, first 'out_layer.norm.bias'" in message
    assert "1 unexpected, first 'extra.weight'" in message
    assert f"1 mis-shaped, first '{changed}': file (7,), model (128,)" in message


def test_sharded_folder(tmp_path):
    """transformers writes large models in shards with an index; a missing shard is named."""
    import json

    shutil.copytree(TINY / "text_encoder", tmp_path / "text_encoder")
    folder = tmp_path / "text_encoder"
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, keys in shards.items():
        save_file({key: tensors[key] for key in keys}, folder / file)
    index = {"weight_map": {key: file for file, keys in shards.items() for key in keys}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    sharded = load_text_encoder(folder, TINY / "tokenizer", text_tokens=224, **FLOAT32)
    whole = load_text_encoder(TINY / "text_encoder", TINY / "tokenizer", text_tokens=224, **FLOAT32)
    assert torch.equal(sharded("a cat"), whole("a cat"))
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="model-00002-of-00002"):
        load_text_encoder(folder, TINY / "tokenizer", text_tokens=224, **FLOAT32)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_text_encoder_without_a_file(tmp_path, missing):
    shutil.copytree(TINY / "text_encoder", tmp_path / "text_encoder")
    (tmp_path / "text_encoder" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=r"text_encoder"):
        load_text_encoder(tmp_path / "text_encoder", TINY / "tokenizer", text_tokens=224, **FLOAT32)


def test_weights_of_another_component():
    with pytest.raises((CheckpointError, FileNotFoundError), match=r"tokenizer|text_encoder"):
        load_vae(TINY / "text_encoder", **FLOAT32)


def test_what_is_loaded_within_a_call_is_not_of_its_inference_mode():
    """Threads that read are not in it, and could not write to it."""
    checkpoint = open_checkpoint(TINY / "vae")
    with torch.inference_mode():
        found = read_tensors(checkpoint, [*checkpoint.shapes][:3], device=CPU, dtype=torch.bfloat16)
    assert not any(tensor.is_inference() for tensor in found.values())
