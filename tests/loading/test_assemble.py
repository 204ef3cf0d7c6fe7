"""Settings to parts."""

import shutil
from dataclasses import replace

import pytest
import torch
from checkpoint_helpers import dit_state
from helpers import TINY

from kandinsky.checkpoint.files import SafetensorsFiles
from kandinsky.checkpoint.fingerprint import fingerprint
from kandinsky.checkpoint.load import dit_config, open_checkpoint
from kandinsky.checkpoint.pending import SAVED
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError
from kandinsky.loading import assemble
from kandinsky.loading.assemble import configure_, load_components, load_parts
from kandinsky.loading.parts import is_resident
from kandinsky.loading.settings import settings_of
from kandinsky.model.attention import BACKENDS, TORCH
from kandinsky.model.bounded import MAX_LOGIT, largest
from kandinsky.model.operations import Operations
from kandinsky.model.precision import EXACT
from kandinsky.parallel.apply import check_size
from kandinsky.parallel.ranks import Ranks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def settings(small_weights):
    return settings_of("cpu", cache_dir=small_weights, progress=False)


@pytest.fixture
def weights(tmp_path):
    """Weights that a test may change."""
    return shutil.copytree(TINY, tmp_path / "w")


def test_all_parts_are_there(settings):
    parts = load_parts(settings)
    assert parts.model_set == settings.model_set
    assert parts.schedule == settings.schedule
    assert parts.ranks == parts.team == Ranks()
    assert parts.dit.attention is TORCH
    assert parts.vae.device == parts.text_encoder.device == parts.dit.device == CPU
    assert is_resident(parts)
    assert not parts.progress
    modules = (parts.dit, parts.text_encoder.model, parts.vae.autoencoder)
    assert not any(parameter.requires_grad for module in modules for parameter in module.parameters())


def test_records_say_how_it_was_made(settings):
    parts = load_parts(replace(settings, memory_saving=True))
    origin, source = parts.origin, parts.vae_source
    assert dict(origin.devices) == {"dit": "cpu", "vae": "cpu", "text_embedder": "cpu"}
    assert (origin.dtype, origin.precision, origin.attention, origin.kernels) == (None, "exact", "torch", "torch")
    assert (origin.parallelism, origin.processes, origin.vae_memory_saving) == ("none", 1, True)
    marks = {name: fingerprint(open_checkpoint(getattr(settings.paths, name))) for name in origin.weights}
    assert dict(origin.weights) == marks
    assert set(marks) == {"dit", "text_encoder", "vae"}
    assert source.path == str(settings.paths.vae.absolute())
    assert (source.device, source.dtype, source.memory_saving) == ("cpu", "float32", True)


def test_another_dtype_is_told(settings):
    half = dict.fromkeys(settings.dtypes, torch.bfloat16)
    parts = load_parts(replace(settings, dtype=torch.bfloat16, dtypes=half))
    assert parts.origin.dtype == parts.vae_source.dtype == "bfloat16"
    assert parts.dit.dtype == parts.text_encoder.model.dtype == torch.bfloat16
    assert parts.modulation.blocks.dtype == torch.bfloat16


def test_where_no_fingerprints_are_taken_no_text_encoder_is_loaded(settings):
    """They are taken by the first rank of a team, which is the only one that needs it."""
    loaded = load_components(settings, Ranks(), None)
    assert loaded.prompts is None
    assert loaded.messenger is None
    assert loaded.vae is not None


def test_latents_name_a_place_of_the_vae_that_lasts(weights):
    """Not that of parts that were saved and are not in their places yet."""
    (weights / SAVED).mkdir()
    (weights / "vae").rename(weights / SAVED / "vae")
    settings = settings_of("cpu", cache_dir=weights, progress=False)
    assert settings.paths.vae == weights / SAVED / "vae"
    assert load_parts(settings).vae_source.path == str(weights / "vae")


def test_heads_that_cannot_be_shared(settings):
    """Told from the header, before any weight is read."""
    with pytest.raises(ValueError, match="3 processes cannot share 2 heads; allowed: 1, 2"):
        check_size(3, dit_config(settings.checkpoint))


def test_norms_do_not_bar_an_attention(weights):
    """Whatever the checkpoint's norms allow: each block takes the form that they leave."""
    state = dit_state()
    name = "transformer_blocks.0.0.self_attention.query_norm.weight"
    torch.save({**state, name: state[name] * 100}, weights / FLASH_512.dit_file)
    settings = settings_of("cpu", cache_dir=weights, progress=False)
    logits = load_parts(replace(settings, attention=BACKENDS["bounded"])).dit.logits()
    assert logits[0].bound > MAX_LOGIT > largest(logits[1:]).bound


@pytest.mark.parametrize("name", ["vae", "text_encoder"])
def test_weights_that_are_damaged(weights, name):
    """Nothing but the values is wrong until they are read."""
    settings = settings_of("cpu", cache_dir=weights, progress=False)
    (file,) = (weights / name).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=f"{file.name} is truncated"):
        load_parts(settings)


def test_how_a_dit_runs_is_set_in_one_place(settings):
    parts = load_parts(settings)
    operations = Operations("other", *[None] * 3)
    configure_(parts.dit, operations, attention=TORCH, ranks=Ranks())
    assert parts.dit.operations is operations
    assert parts.dit.attention is TORCH
    configure_(parts.dit, EXACT.operations("auto", CPU), attention=None, ranks=Ranks())
    assert parts.dit.operations.name == "torch"


class OneCannot(Ranks):
    """Of two ranks the other one has a GPU of another kind."""

    def collect(self, value):
        return [value, False]


def test_a_precision_prefers_an_attention_that_nobody_named(settings, monkeypatch):
    """It is taken where it runs; else what is measured is, and what was named wins in any case."""
    dit, cudnn, operations = load_parts(settings).dit, BACKENDS["cudnn"], EXACT.operations("auto", CPU)
    run = {"ranks": Ranks(), "preferred": cudnn}
    monkeypatch.setattr(assemble, "unasked", lambda backend, **_: backend)
    configure_(dit, operations, attention=None, **run)
    assert dit.attention is cudnn
    configure_(dit, operations, attention=TORCH, **run)
    assert dit.attention is TORCH
    dit.attention = cudnn
    configure_(dit, operations, attention=None, ranks=OneCannot(), preferred=cudnn)
    assert dit.attention is TORCH
    dit.attention = cudnn
    monkeypatch.setattr(assemble, "unasked", lambda _backend, **_: None)
    configure_(dit, operations, attention=None, **run)
    assert dit.attention is TORCH


def test_without_fused_kernels_attention_is_chosen_without_triton_too(settings, monkeypatch):
    asked = []
    monkeypatch.setattr(assemble, "choose_attention", lambda *_, triton, **__: asked.append(triton) or TORCH)
    dit = load_parts(settings).dit
    configure_(dit, Operations("triton", *[None] * 3), attention=None, ranks=Ranks())
    assert asked == [False, True]


def test_files_of_t5_and_the_vae_are_those_that_were_located(settings):
    """In whatever folder: the settings name them."""
    assert isinstance(open_checkpoint(settings.paths.vae), SafetensorsFiles)
    with pytest.raises((FileNotFoundError, CheckpointError)):
        load_parts(replace(settings, paths=replace(settings.paths, vae=settings.paths.tokenizer)))
