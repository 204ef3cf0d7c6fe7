"""Prompts that were encoded before need no encoder."""

import threading

import pytest
import torch
from fakes import CPU
from safetensors.torch import load_file, save_file

from kandinsky.text.cache import KEPT, PromptCache

PROMPT = 'a "cat" /../ \'\n\0 🐦'


class Encoder:
    """Gives another embedding at each call; `asked` are its prompts."""

    def __init__(self):
        self.asked = []

    def __call__(self, text):
        self.asked.append(text)
        return torch.full((2, 3), float(len(self.asked)))


def never():
    pytest.fail("the encoder was loaded")


def cache(load, folder=None, fingerprint="weights", *, is_resident=True):
    return PromptCache(load, device=CPU, fingerprint=fingerprint, is_resident=is_resident, folder=folder)


@pytest.fixture
def filled(tmp_path):
    """A folder in which `PROMPT` is, and its embedding."""
    folder = tmp_path / "a" / "cache"  # which is made
    return folder, cache(Encoder, folder)(PROMPT)


def test_a_prompt_is_encoded_once():
    encoder = Encoder()
    prompts = cache(lambda: encoder)
    first, again, other = prompts(PROMPT), prompts(PROMPT), prompts("a dog")
    assert encoder.asked == [PROMPT, "a dog"]
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_prompt_in_the_folder_needs_no_encoder(filled):
    folder, embedding = filled
    assert torch.equal(cache(never, folder)(PROMPT), embedding)
    with pytest.raises(pytest.fail.Exception, match="loaded"):
        cache(never, folder)(PROMPT + " ")


def test_the_encoder_is_loaded_once():
    loaded = []

    def load():
        loaded.append(1)
        return Encoder()

    prompts = cache(load)
    assert loaded == []
    threads = [threading.Thread(target=prompts, args=(str(number),)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == [1]
    assert sorted(prompts.encoder.asked) == [str(number) for number in range(8)]


def test_another_fingerprint_is_a_miss(filled):
    folder, _ = filled
    encoder = Encoder()
    cache(lambda: encoder, folder, "other weights")(PROMPT)
    assert encoder.asked == [PROMPT]
    assert len(list(folder.iterdir())) == 2


def damage(path, content):
    if content is None:
        save_file({"other": torch.zeros(1)}, path)
    else:
        path.write_bytes(content)


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", None], ids=["empty", "other", "another tensor"])
def test_a_damaged_file_is_a_miss_with_a_warning(filled, content):
    folder, embedding = filled
    (path,) = folder.iterdir()
    damage(path, content)
    with pytest.warns(UserWarning, match=r"safetensors is damaged \(.*\); the prompt is encoded again"):
        assert torch.equal(cache(Encoder, folder)(PROMPT), embedding)
    assert torch.equal(load_file(path)["embedding"], embedding)  # it is whole again
    assert torch.equal(cache(never, folder)(PROMPT), embedding)


def test_a_folder_that_cannot_be_written_is_only_warned_of(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.warns(UserWarning, match=r"prompt_cache='.*file': not written \("):
        assert cache(Encoder, tmp_path / "file")(PROMPT).shape == (2, 3)


def test_memory_is_bounded():
    """The prompt that was asked for longest ago is forgotten first."""
    encoder = Encoder()
    prompts = cache(lambda: encoder)
    for number in range(KEPT):
        prompts(str(number))
    prompts("0")
    prompts("one more")
    assert len(encoder.asked) == KEPT + 1
    prompts("0")
    assert len(encoder.asked) == KEPT + 1
    prompts("1")
    assert encoder.asked[-2:] == ["one more", "1"]


def test_what_is_the_encoders(pipe):
    encoder = pipe.text_encoder.encoder
    prompts = cache(lambda: encoder)
    assert prompts.model is encoder.model
    assert prompts.tokenizer is encoder.tokenizer


@pytest.mark.parametrize("stays", [True, False])
def test_whether_weights_stay_is_told_without_them(stays):
    assert cache(never, is_resident=stays).is_resident == stays
