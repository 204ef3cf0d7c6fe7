"""Weights from files to modules: as they are, in whichever form users have them, and never a part of them."""

import re
import shutil
import warnings

import pytest
import torch
from checkpoint_helpers import CPU, DIT, FLOAT32, POINTER, ROPE, T5, dit_state, shard
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import (
    CHANGED_BYTES,
    changing_bytes,
    check_fit,
    dit_config,
    open_checkpoint,
    read_config,
    read_tensors,
)
from kandinsky.config import PUBLISHED_DIT
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_dit, load_t5, load_tokenizer, load_vae
from kandinsky.model.dit import DiT

WEIGHT = "transformer_blocks.0.0.self_attention.to_query_key_value.weight"


def saved(state, path):
    torch.save(state, path) if path.suffix == ".pt" else save_file(state, path)
    return path


def loaded(path):
    return load_dit(open_checkpoint(path), **FLOAT32).state_dict()


def expected():
    return {name: value.float() for name, value in dit_state().items()}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def prefixed(prefix, state=None):
    return {prefix + name: value for name, value in (dit_state() if state is None else state).items()}


@pytest.mark.parametrize("ending", ["pt", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_every_kind_of_file_and_dtype(tmp_path, ending, dtype):
    state = {name: value.to(dtype) for name, value in dit_state().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loaded(saved(state, tmp_path / f"dit.{ending}"))
    assert same(found, {name: value.float() for name, value in state.items()})
    assert {value.dtype for value in found.values()} == {torch.float32}


def test_to_bfloat16_it_is_rounded_once(tmp_path):
    state = {name: value.float() * 1.01 for name, value in dit_state().items()}
    dit = load_dit(open_checkpoint(saved(state, tmp_path / "dit.pt")), device=CPU, dtype=torch.bfloat16)
    assert same(dit.state_dict(), {name: value.bfloat16() for name, value in state.items()})


def test_weights_need_no_gradient():
    assert not any(parameter.requires_grad for parameter in load_dit(open_checkpoint(DIT), **FLOAT32).parameters())


WRAPPED = {
    "module": prefixed("module."),
    "compiled": prefixed("_orig_mod."),
    "both": prefixed("module._orig_mod."),
    "model": prefixed("model."),
    "lightning": {"state_dict": prefixed("model._orig_mod."), "epoch": 3},
    "ema": {"ema": dit_state(), "step": 7},
    "nested": {"model": {"module": prefixed("module.")}, "optimizer": {"state": {}}},
    "compiled blocks": {
        re.sub(r"(transformer_blocks\.\d\.\d)", r"\1._orig_mod", name): value for name, value in dit_state().items()
    },
}


@pytest.mark.parametrize("content", WRAPPED.values(), ids=WRAPPED)
def test_wrappers_and_prefixes_are_taken_off_and_said(tmp_path, content):
    path = saved(content, tmp_path / "dit.pt")
    checkpoint = open_checkpoint(path)
    assert fingerprint(checkpoint) == fingerprint(open_checkpoint(DIT))
    with pytest.warns(UserWarning, match=r"dit\.pt: .*(taken without '|taken from its ')") as told:
        found = loaded(path)
    assert len(told) == 1
    assert same(found, expected())


def test_prefixes_in_safetensors_and_other_models(tmp_path):
    with pytest.warns(UserWarning, match=r"dit\.safetensors: names are taken without 'model\.'"):
        assert same(loaded(saved(prefixed("model."), tmp_path / "dit.safetensors")), expected())
    for name, load, file in (
        ("text_encoder", load_t5, "model.safetensors"),
        ("vae", load_vae, "diffusion_pytorch_model.safetensors"),
    ):
        shutil.copytree(TINY / name, tmp_path / name)
        state = load_file(TINY / name / file)
        saved(prefixed("module._orig_mod.", state), tmp_path / name / file)
        with pytest.warns(UserWarning, match=rf"{name}: names are taken without '_orig_mod\.', 'module\.'"):
            load(tmp_path / name, **FLOAT32)
        assert open_checkpoint(tmp_path / name).shapes.keys() == state.keys()


def test_a_file_with_two_models_is_refused(tmp_path):
    state = prefixed("ema.") | prefixed("model.")
    with pytest.raises(CheckpointError, match=r"dit\.pt holds a Kandinsky 4 DiT more than once, under 'ema\.', 'model"):
        open_checkpoint(saved(state, tmp_path / "dit.pt"))


def test_extra_keys_are_named_and_left_out(tmp_path):
    extra = {f"extra.{number}": torch.zeros(1) for number in range(5)}
    path = saved(dit_state() | extra, tmp_path / "dit.pt")
    message = r"dit\.pt: not part of the model and left out: 5 tensors, first 'extra\.0', 'extra\.1', 'extra\.2'$"
    with pytest.warns(UserWarning, match=message) as told:
        assert same(loaded(path), expected())
    assert len(told) == 1


@pytest.mark.parametrize("gone", [ROPE, ROPE[:1], ROPE[1:]])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_missing_angles_are_those_that_the_file_would_have(tmp_path, gone, dtype):
    whole = load_dit(open_checkpoint(DIT), **FLOAT32)
    state = {name: value.to(dtype) for name, value in dit_state().items() if name not in gone}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = loaded(saved(state, tmp_path / "dit.pt"))
    assert dit_config(open_checkpoint(tmp_path / "dit.pt")) == whole.config
    if dtype == torch.bfloat16:
        assert same(found, whole.state_dict())
    else:
        positions, numbers = torch.arange(128.0), torch.arange(12.0)
        angles = torch.outer(positions, 10_000 ** (-numbers / 12))
        assert (found[ROPE[2]] - angles).abs().max() < (1e-4 if ROPE[2] in gone else 1)


def test_missing_angles_of_other_heads_are_an_error(tmp_path):
    state = {name: value for name, value in dit_state().items() if name not in ROPE}
    state |= {name: value[:32] for name, value in state.items() if "query_norm" in name}
    message = r"not a Kandinsky 4 DiT: key 'rope_embeddings\.args_0' is missing, and with heads of 32 channels nothing"
    with pytest.raises(CheckpointError, match=message):
        dit_config(open_checkpoint(saved(state, tmp_path / "dit.pt")))
    state = {name: value for name, value in dit_state().items() if name != ROPE[0]} | {ROPE[1]: torch.zeros(128, 4)}
    with pytest.raises(CheckpointError, match="with heads of 64 channels nothing"):
        dit_config(open_checkpoint(saved(state, tmp_path / "dit.pt")))


def test_sizes_are_read_off_the_checkpoint(tmp_path):
    config = dit_config(open_checkpoint(DIT))
    assert (config.model_dim, config.ff_dim, config.num_blocks, config.in_text_dim) == (128, 512, 2, 64)
    assert config.axes_dims == (16, 24, 24)
    extra = {"transformer_blocks.norm.weight": torch.zeros(1)}
    assert dit_config(open_checkpoint(saved(dit_state() | extra, tmp_path / "dit.pt"))) == config
    state = {name: value for name, value in dit_state().items() if not name.startswith("transformer_blocks.0.1")}
    with pytest.raises(CheckpointError, match=r"missing, first 'transformer_blocks\.0\.1"):
        loaded(saved(state, tmp_path / "dit.pt"))


def test_published_sizes():
    with torch.device("meta"):
        dit = DiT(PUBLISHED_DIT)
    assert round(sum(parameter.numel() for parameter in dit.parameters()) / 1e9, 3) == 5.570


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"weights not found: .*nothing\.pt"):
        open_checkpoint(tmp_path / "nothing.pt")


@pytest.mark.parametrize(
    ("state", "holds"),
    [
        ({"weight": torch.zeros(2)}, "it holds 1 tensors, first 'weight'"),
        (
            {WEIGHT.replace("weight", f"lora_{x}.weight"): torch.zeros(2) for x in "AB"},
            "it looks like a LoRA: 2 tensors",
        ),
        ({"visual_embeddings.in_layer.weight": torch.zeros(2)}, "it looks like a Kandinsky 4 DiT: 1 tensors"),
    ],
)
def test_another_model_is_told_what_it_is(tmp_path, state, holds):
    with pytest.raises(CheckpointError, match=rf"other\.pt is not a Kandinsky 4 DiT: key 'visual_.*; {holds}"):
        dit_config(open_checkpoint(saved(state, tmp_path / "other.pt")))


@pytest.mark.parametrize(("part", "kind"), [("text_encoder", "a T5 text encoder"), ("vae", "a VAE")])
def test_another_component_is_told_what_it_is(part, kind):
    with pytest.raises(CheckpointError, match=f"is not a Kandinsky 4 DiT: key .* is missing; it looks like {kind}: "):
        dit_config(open_checkpoint(TINY / part))


def test_weights_of_another_component(tmp_path):
    shutil.copytree(T5, tmp_path / "vae")
    with pytest.raises(CheckpointError, match="describes _class_name=None, not 'AutoencoderKLCogVideoX'"):
        load_vae(tmp_path / "vae", **FLOAT32)
    shutil.copy(TINY / "vae" / "config.json", tmp_path / "vae")
    with pytest.raises(CheckpointError, match=r"missing, first 'decoder\.conv_in.*it looks like a T5 text encoder: 21"):
        load_vae(tmp_path / "vae", **FLOAT32)


def test_keys_that_do_not_fit(tmp_path):
    gone, changed = "out_layer.norm.bias", "transformer_blocks.1.0.feed_forward.out_layer.bias"
    wrong = {name: value for name, value in dit_state().items() if name != gone}
    wrong |= {"extra.weight": torch.zeros(1), changed: torch.zeros(7)}
    with pytest.raises(CheckpointError) as caught:
        loaded(saved(wrong, tmp_path / "wrong.pt"))
    message = str(caught.value)
    assert "wrong.pt does not fit the model" in message
    assert "1 missing, first 'out_layer.norm.bias'" in message
    assert "1 unexpected, first 'extra.weight'" in message
    assert f"1 mis-shaped, first '{changed}': file (7,), model (128,)" in message
    assert "it looks like a Kandinsky 4 DiT: " in message


def test_only_names_with_a_prefix_are_compared():
    checkpoint = open_checkpoint(TINY / "vae")
    shapes = {name: shape for name, shape in checkpoint.shapes.items() if name.startswith("encoder.")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_fit(checkpoint, shapes, prefix="encoder.")


def test_sharded_folder(tmp_path):
    """transformers writes large models in shards with an index; a missing shard is named."""
    shutil.copytree(T5, tmp_path / "t5")
    shards = shard(tmp_path / "t5")
    assert same(load_t5(tmp_path / "t5", **FLOAT32).state_dict(), load_t5(T5, **FLOAT32).state_dict())
    shards[1].unlink()
    with pytest.raises(FileNotFoundError, match=shards[1].name):
        open_checkpoint(tmp_path / "t5")


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_parts_of_a_folder(tmp_path, missing):
    shutil.copytree(T5, tmp_path / "text_encoder")
    (tmp_path / "text_encoder" / missing).unlink()
    with pytest.raises(FileNotFoundError, match=r"text_encoder"):
        load_t5(tmp_path / "text_encoder", **FLOAT32)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not a model configuration"),
        ("[1]", "is not a model configuration: expected an object"),
        ('{"model_type": "bert"}', "describes model_type='bert', not 't5'"),
        (POINTER, "is a pointer of git-LFS"),
    ],
)
def test_configurations(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=rf"config\.json {message}"):
        read_config(tmp_path, "model_type", "t5")


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("spiece.model", POINTER, r"spiece\.model is a pointer of git-LFS"),
        ("spiece.model", "", r"spiece\.model is empty"),
        ("spiece.model", "no model", "holds no T5 tokenizer"),
        ("tokenizer_config.json", POINTER, r"tokenizer_config\.json is a pointer of git-LFS"),
    ],
)
def test_a_damaged_tokenizer(tmp_path, file, content, message):
    shutil.copytree(TINY / "tokenizer", tmp_path / "tokenizer")
    (tmp_path / "tokenizer" / file).write_text(content)
    with pytest.raises(CheckpointError, match=message):
        load_tokenizer(tmp_path / "tokenizer")


def test_what_is_loaded_within_a_call_is_not_of_its_inference_mode():
    """Threads that read are not in it, and could not write to it."""
    checkpoint = open_checkpoint(TINY / "vae")
    with torch.inference_mode():
        found = read_tensors(checkpoint, [*checkpoint.shapes][:3], device=CPU, dtype=torch.bfloat16)
    assert not any(tensor.is_inference() for tensor in found.values())


def test_bytes_in_another_dtype_while_it_is_loaded(tmp_path):
    checkpoint = open_checkpoint(DIT)
    whole = sum(value.nbytes for value in dit_state().values())
    assert changing_bytes(checkpoint, checkpoint.shapes, torch.bfloat16) == 0
    assert changing_bytes(checkpoint, checkpoint.shapes, torch.float32) == whole
    assert changing_bytes(checkpoint, [], torch.float32) == 0
    scales = {"a.scale": torch.zeros(8), "a.weight": torch.zeros(8).to(torch.float8_e4m3fn), "b": torch.zeros(8)}
    quantised = open_checkpoint(saved(scales, tmp_path / "q.safetensors"))
    assert changing_bytes(quantised, quantised.shapes, torch.bfloat16) == 32
    with torch.device("meta"):
        large = {str(number): torch.empty(100_000_000) for number in range(9)}
    assert changing_bytes(Sizes(large), large, torch.bfloat16) == CHANGED_BYTES + 400_000_000


class Sizes:
    """A checkpoint of tensors without values."""

    def __init__(self, state):
        self.state, self.shapes = state, {name: tuple(value.shape) for name, value in state.items()}

    def dtype(self, name):
        return self.state[name].dtype
