"""The text encoder and its memory of prompts, from settings."""

import hashlib
import shutil
from dataclasses import replace

import pytest
import torch
from helpers import TINY, relative_error

from kandinsky.loading import prompts
from kandinsky.loading.assemble import load_parts
from kandinsky.loading.parts import is_resident
from kandinsky.loading.settings import settings_of


@pytest.fixture(scope="module")
def settings(small_weights):
    return settings_of("cpu", cache_dir=small_weights, progress=False)


def test_a_prompt_that_will_be_asked_for_is_encoded_at_load(settings, pipe):
    encoder = load_parts(replace(settings, prompt="a cat")).text_encoder
    (kept,) = encoder._kept.values()
    assert torch.equal(kept, pipe.text_encoder("a cat"))
    assert encoder("a cat") is not None
    assert len(encoder._kept) == 1


def has_loaded(encoder):
    return encoder._encoder is not None


def test_a_prompt_that_was_encoded_before_never_loads_t5(settings, tmp_path):
    """Its weights could not be read at all."""
    cached = replace(settings, prompt_cache=tmp_path / "cache")
    first = load_parts(cached).text_encoder
    assert not has_loaded(first)
    embedding = first("a cat")
    assert has_loaded(first)
    again = load_parts(replace(cached, prompt="a cat")).text_encoder
    assert torch.equal(again("a cat"), embedding)
    assert not has_loaded(again)
    again("a dog")
    assert has_loaded(again)


@pytest.mark.parametrize(
    "changed", ["tokenizer/spiece.model", "text_encoder/model.safetensors", "text_encoder/config.json"]
)
def test_other_weights_or_tokenizer_are_a_miss(tmp_path, changed):
    weights = shutil.copytree(TINY, tmp_path / "w")

    def key(encoder):
        return hashlib.sha256(f"{encoder.fingerprint}\na cat".encode()).hexdigest()

    settings = settings_of("cpu", cache_dir=weights, prompt_cache=tmp_path / "cache", progress=False)
    before = load_parts(settings).text_encoder
    file = weights / changed
    content = bytearray(file.read_bytes())
    if file.suffix == ".json":
        content += b"\n"
    else:
        content[-100] ^= 1
    file.write_bytes(content)
    after = load_parts(settings_of("cpu", cache_dir=weights, prompt_cache=tmp_path / "cache", progress=False))
    assert key(after.text_encoder) != key(before)


def test_t5_in_8_bits(settings, pipe):
    other = load_parts(replace(settings, text_encoder_int8=True))
    expected, found = pipe.text_encoder("a cat"), other.text_encoder("a cat")
    assert 0 < relative_error(found, expected) < 0.03
    assert other.origin.text_encoder_int8
    assert other.text_encoder.fingerprint != pipe.text_encoder.fingerprint


def test_t5_is_not_loaded_to_tell_whether_it_stays(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "load_t5", lambda *_, **__: pytest.fail("T5 was loaded"))
    assert is_resident(load_parts(replace(settings, prompt_cache=tmp_path / "cache")))
