"""One loader for each component: strict, and clear about what is wrong."""

import json
import shutil

import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.errors import CheckpointError
from kandinsky.loading import components
from kandinsky.loading.components import load_dit, load_t5, load_text_encoder, load_tokenizer, load_vae, vae_conversion
from kandinsky.model.dit import DiT
from kandinsky.model.precision import EXACT, FAST
from kandinsky.text.t5 import EMBEDDING
from kandinsky.vae import float8
from kandinsky.vae.rows import Whole

CPU = torch.device("cpu")
PLACE = {"device": CPU, "dtype": torch.float32}


def copied(name, tmp_path):
    return shutil.copytree(TINY / name, tmp_path / name)


def changed_config(folder, **changes):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


def test_dit():
    checkpoint = open_checkpoint(TINY / "kandinsky4_distil_512.pt")
    dit = load_dit(checkpoint, **PLACE)
    assert dit.config.model_dim == 128
    assert dit.dtype == torch.float32
    for name, value in dit.state_dict().items():
        assert torch.equal(value, checkpoint.tensor(name, CPU).float())
    assert load_dit(checkpoint, device=CPU, dtype=torch.bfloat16).dtype == torch.bfloat16


def test_dit_of_another_kind():
    """As several processes build it."""

    class Other(DiT):
        pass

    assert type(load_dit(open_checkpoint(TINY / "kandinsky4_distil_512.pt"), build=Other, **PLACE)) is Other


def test_text_encoder(pipe):
    encoder = load_text_encoder(TINY / "text_encoder", TINY / "tokenizer", text_tokens=224, **PLACE)
    assert torch.equal(encoder("a cat"), pipe.text_encoder("a cat"))


@pytest.mark.parametrize("kept", EMBEDDING)
def test_the_embedding_has_either_name_in_files(tmp_path, kept):
    folder = copied("text_encoder", tmp_path)
    (file,) = folder.glob("*.safetensors")
    tensors = load_file(file)
    embedding = next(tensors[name] for name in EMBEDDING if name in tensors)
    rest = {name: value for name, value in tensors.items() if name not in EMBEDDING}
    save_file({**rest, kept: embedding}, file)
    model = load_t5(folder, **PLACE)
    assert torch.equal(model.shared.weight, embedding.float())
    assert model.encoder.embed_tokens is model.shared


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"feed_forward_proj": "relu"}, r"config\.json: .*'relu'; supported: 'gated-gelu'"),
        ({"model_type": "bert"}, r"config\.json.*t5"),
        ({"d_ff": None}, r"config\.json: the text encoder's configuration is incomplete"),
        ({"num_layers": 9}, r"text_encoder does not fit the model: keys .* missing"),
        ({"d_model": 32}, r"text_encoder does not fit the model: keys .* mis-shaped"),
    ],
)
def test_another_t5_is_refused(tmp_path, changes, message):
    folder = copied("text_encoder", tmp_path)
    changed_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_t5(folder, **PLACE)


def test_vae(pipe):
    latents = torch.randn(1, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    vae = load_vae(TINY / "vae", **PLACE)
    saving = load_vae(TINY / "vae", memory_saving=True, **PLACE)
    (frames,) = vae.decode(latents)
    assert torch.equal(frames, next(pipe.vae.decode(latents)))
    assert torch.equal(next(saving.decode(latents)), frames)
    assert (vae.memory_saving, saving.memory_saving) == (False, True)
    assert not vae.staged


def test_vae_takes_what_it_is_given():
    asked = []

    def rows_of(rows):
        asked.append(rows)
        return Whole()

    vae = load_vae(TINY / "vae", rows_of=rows_of, staged=True, **PLACE)
    assert vae.staged
    assert next(vae.decode(torch.zeros(1, 4, 4, 16))).shape == (1, 32, 32, 3)
    assert asked == [4]


def test_a_precision_says_what_becomes_of_the_vae(monkeypatch):
    monkeypatch.setattr(float8, "kernel_on", lambda _device: float8.emulated)
    monkeypatch.setattr(float8, "CHANNELS", 16)
    latents = torch.randn(2, 4, 4, 16, generator=torch.Generator().manual_seed(0))
    conversions = [None, vae_conversion(EXACT), vae_conversion(FAST), vae_conversion(FAST, agree=lambda _one: False)]
    settings = [{} if convert is None else {"convert": convert} for convert in conversions]
    plain, exact, fast, alone = (next(load_vae(TINY / "vae", **one, **PLACE).decode(latents)) for one in settings)
    assert torch.equal(exact, plain)
    assert not torch.equal(fast, plain)
    assert torch.equal(alone, plain)
    staged = load_vae(TINY / "vae", staged=True, convert=vae_conversion(FAST), **PLACE)
    assert torch.equal(next(staged.decode(latents)), fast)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"_class_name": "AutoencoderKL"}, r"config\.json.*AutoencoderKLCogVideoX"),
        ({"block_out_channels": None}, r"config\.json lacks 'block_out_channels'"),
        ({"scaling_factor": None}, r"config\.json lacks 'scaling_factor'"),
        ({"act_fn": "relu"}, "act_fn is 'relu'"),
        ({"temporal_compression_ratio": 3}, "temporal_compression_ratio is 3"),
        ({"latent_channels": 8}, r"vae does not fit the model: keys .* mis-shaped"),
        ({"layers_per_block": 5}, r"vae does not fit the model: keys .* missing"),
    ],
)
def test_another_vae_is_refused(tmp_path, changes, message):
    folder = copied("vae", tmp_path)
    changed_config(folder, **changes)
    with pytest.raises(CheckpointError, match=message):
        load_vae(folder, **PLACE)


def test_tokenizer(pipe):
    assert load_tokenizer(TINY / "tokenizer")("a cat sleeps") == pipe.text_encoder.encoder.backend("a cat sleeps")


def test_a_tokenizer_is_kept_by_its_files(tmp_path, monkeypatch):
    """transformers is asked for it once, and again for other files."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    opened = []
    inner = components._transformers_tokenizer
    monkeypatch.setattr(components, "_transformers_tokenizer", lambda folder: opened.append(folder) or inner(folder))
    folder = copied("tokenizer", tmp_path)
    first, second = load_tokenizer(folder), load_tokenizer(TINY / "tokenizer")
    assert first("a cat sleeps") == second("a cat sleeps")
    assert opened == [folder]
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "extra_ids": 7}')
    load_tokenizer(folder)
    assert opened == [folder, folder]
    (folder / "spiece.model").write_bytes(b"none")
    with pytest.raises(CheckpointError, match="holds no T5 tokenizer"):
        load_tokenizer(folder)


def test_a_tokenizer_that_is_none(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer not found: .*spiece\.model"):
        load_tokenizer(tmp_path)
    folder = copied("tokenizer", tmp_path)
    (folder / "spiece.model").write_bytes(b"\xff" * 1000)
    with pytest.raises(CheckpointError, match="holds no T5 tokenizer"):
        load_tokenizer(folder)
    (folder / "spiece.model").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"the tokenizer is damaged: .* is empty"):
        load_tokenizer(folder)


def test_what_is_missing(tmp_path):
    for load in (load_t5, load_vae):
        with pytest.raises(FileNotFoundError):
            load(tmp_path, **PLACE)
