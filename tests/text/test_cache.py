"""Repeated prompts need no T5."""

import hashlib
import shutil

import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky import factory
from kandinsky.text.cache import KEPT, PromptCache


def pipeline(weights, cache):
    return factory.get_T2V_pipeline("cpu", cache_dir=weights, prompt_cache=cache, progress=False)


@pytest.fixture
def weights(tmp_path):
    return shutil.copytree(TINY, tmp_path / "w")


@pytest.fixture
def filled(weights, tmp_path):
    """A cache in which "a cat" is, and its embedding."""
    embedding = pipeline(weights, tmp_path / "cache").text_encoder("a cat")
    return tmp_path / "cache", embedding


def has_loaded(pipe):
    return pipe.text_encoder._encoder is not None


def test_cached_prompt_never_loads_t5(weights, filled):
    cache, embedding = filled
    pipe = pipeline(weights, cache)
    assert torch.equal(pipe.text_encoder("a cat"), embedding)
    assert not has_loaded(pipe)
    pipe.text_encoder("a dog")
    assert has_loaded(pipe)


@pytest.mark.parametrize(
    "changed", ["tokenizer/spiece.model", "text_encoder/model.safetensors", "text_encoder/config.json"]
)
def test_other_weights_or_tokenizer_are_a_miss(weights, filled, changed):
    before = pipeline(weights, filled[0]).text_encoder
    content = bytearray((weights / changed).read_bytes())
    content[len(content) // 2] ^= 1
    (weights / changed).write_bytes(content)
    after = pipeline(weights, filled[0]).text_encoder
    key = [hashlib.sha256(f"{prompts.fingerprint}\na cat".encode()).hexdigest()[:32] for prompts in (before, after)]
    assert [(filled[0] / f"{name}.safetensors").is_file() for name in key] == [True, False]


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", None])
def test_damaged_file_is_a_miss_with_a_warning(weights, filled, content):
    cache, embedding = filled
    (path,) = cache.iterdir()
    if content is None:
        save_file({"other": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="is damaged"):
        assert torch.equal(pipeline(weights, cache).text_encoder("a cat"), embedding)
    assert torch.equal(load_file(path)["embedding"], embedding)


def test_folder_that_cannot_be_written_is_only_warned_of(weights, tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match="not written"):
        assert pipeline(weights, tmp_path / "file").text_encoder("a cat").shape == (224, 64)


def test_prompt_that_will_be_asked_for_is_encoded_at_load(weights, filled):
    pipe = factory.get_T2V_pipeline("cpu", cache_dir=weights, prompt="a cat", progress=False)
    kept = list(pipe.text_encoder._kept.values())
    assert len(kept) == 1
    assert torch.equal(kept[0], filled[1])
    assert torch.equal(pipe.text_encoder("a cat"), filled[1])
    assert list(pipe.text_encoder._kept.values()) == kept


def test_memory_is_bounded():
    asked = []

    def encode(text):
        asked.append(text)
        return torch.full((2, 2), float(len(asked)))

    prompts = PromptCache(lambda: encode, device=torch.device("cpu"), fingerprint="")
    first = prompts("0")
    assert torch.equal(prompts("0"), first)
    for number in range(1, KEPT + 1):
        prompts(str(number))
    assert len(asked) == KEPT + 1
    prompts("0")
    assert len(asked) == KEPT + 2
