"""Which files of a folder are taken: as transformers and diffusers choose, and never by the alphabet."""

import json

import pytest
from checkpoint_helpers import POINTER

from kandinsky.checkpoint.folder import weight_files
from kandinsky.errors import CheckpointError

T5, VAE = '{"model_type": "t5"}', '{"_class_name": "AutoencoderKLCogVideoX"}'
WHOLE, DIFFUSERS = "model.safetensors", "diffusion_pytorch_model.safetensors"
SHARDS = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
OURS = ["diffusion_pytorch_model-00001-of-00001.safetensors"]


def folder_of(folder, names, config=None):
    """A folder of empty files; an index names the shards of its kind."""
    for name in names:
        (folder / name).touch()
    for name in (name for name in names if name.endswith(".index.json")):
        shards = OURS if name.startswith("diffusion") else SHARDS
        (folder / name).write_text(json.dumps({"weight_map": {f"key{n}": file for n, file in enumerate(shards)}}))
    if config is not None:
        (folder / "config.json").write_text(config)
    return folder


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        ([WHOLE], [WHOLE]),
        ([WHOLE, "model.fp16.safetensors", "a.safetensors"], [WHOLE]),
        ([WHOLE, "._model.safetensors", "._a.safetensors", ".a-01234567.partial.safetensors"], [WHOLE]),
        ([f"{WHOLE}.index.json", *SHARDS, "a.safetensors", "model.fp16.safetensors"], SHARDS),
        ([f"{WHOLE}.index.json", *SHARDS, "model-00001-of-00003.safetensors"], SHARDS),
        ([WHOLE, f"{WHOLE}.index.json", *SHARDS], [WHOLE]),
        ([DIFFUSERS, "diffusion_pytorch_model.fp16.safetensors", "a.safetensors"], [DIFFUSERS]),
        ([DIFFUSERS, f"{DIFFUSERS}.index.json", *OURS], OURS),
        (["mine.safetensors"], ["mine.safetensors"]),
        (["diffusion_pytorch_model.fp16.safetensors", "._x.safetensors"], ["diffusion_pytorch_model.fp16.safetensors"]),
        (["model.safetensors.index.json", *SHARDS, "._model-00001-of-00002.safetensors"], SHARDS),
    ],
)
def test_what_is_taken(tmp_path, names, taken):
    assert [path.name for path in weight_files(folder_of(tmp_path, names)).files] == taken


@pytest.mark.parametrize(("config", "taken"), [(T5, WHOLE), (VAE, DIFFUSERS)])
def test_the_configuration_says_whose_files_are_meant(tmp_path, config, taken):
    assert [path.name for path in weight_files(folder_of(tmp_path, [WHOLE, DIFFUSERS], config)).files] == [taken]


@pytest.mark.parametrize(
    ("names", "config"),
    [
        (["a.safetensors", "b.safetensors"], None),
        (["model.fp16.safetensors", "model.non_ema.safetensors"], T5),
        ([WHOLE, DIFFUSERS], None),
        ([WHOLE, DIFFUSERS], "{"),
        ([WHOLE, DIFFUSERS], "[]"),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, names, config):
    with pytest.raises(CheckpointError, match=f"any of {names[0]}, {names[1]} could be meant"):
        weight_files(folder_of(tmp_path, names, config))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "no .safetensors file in "),
        (["._model.safetensors"], "no .safetensors file in "),
        (["pytorch_model.bin"], "only pytorch_model.bin: save the model as .safetensors"),
        ([SHARDS[0]], "model.safetensors.index.json, without which model-00001-of-00002.safetensors is not read"),
        ([f"{WHOLE}.index.json", SHARDS[0]], "model-00002-of-00002.safetensors .named by model.safetensors.index.json"),
        ([f"{WHOLE}.index.json", "a.safetensors"], "model-00001-of-00002.safetensors, model-00002-of-00002"),
    ],
)
def test_what_is_missing_is_named(tmp_path, names, message):
    with pytest.raises(FileNotFoundError, match=message):
        weight_files(folder_of(tmp_path, names))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is not an index of weights"),
        ("[]", "is not an index of weights"),
        ('{"weight_map": {}}', "is not an index of weights"),
        ('{"weight_map": {"a": 1}}', "is not an index of weights"),
        ('{"weight_map": {"a": "../b.safetensors"}}', r"names '\.\./b\.safetensors': allowed are files beside it"),
        (POINTER, "is a pointer of git-LFS"),
    ],
)
def test_a_damaged_index(tmp_path, content, message):
    (tmp_path / f"{WHOLE}.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        weight_files(tmp_path)


def test_the_index_says_which_file_has_a_tensor(tmp_path):
    found = weight_files(folder_of(tmp_path, [f"{WHOLE}.index.json", *SHARDS]))
    assert found.file_of == {"key0": tmp_path / SHARDS[0], "key1": tmp_path / SHARDS[1]}
