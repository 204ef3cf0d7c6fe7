"""The world's text embedder."""

import pytest
import torch
from transformers import T5Tokenizer
from world_helpers import CPU

from kandinsky.loading.components import load_text_encoder
from kandinsky.training.world import text
from kandinsky.training.world.grammar import caption, split
from kandinsky.training.world.text import (
    PAD,
    SIZES,
    TEXT_TOKENS,
    WORDINGS,
    hide,
    new_encoder,
    sentences,
    tokenize,
    train_encoder,
    write_tokenizer,
)


@pytest.fixture(scope="module")
def texts():
    return sentences(0)


@pytest.fixture(scope="module")
def tokenizer(texts, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, texts[::40])
    return T5Tokenizer.from_pretrained(folder)


def test_only_training_scenes_are_read(texts):
    train, held_out = split()
    assert len(texts) == (1 + WORDINGS) * len(train)
    assert texts[: len(train)] == [caption(scene) for scene in train]
    assert not {caption(scene) for scene in held_out} & set(texts)
    assert sentences(0) == texts


def test_words_are_tokens(tokenizer, texts):
    """Each word of a caption is a piece of its own, whatever its capitals, so that all texts fit."""
    said = "a small red circle at the top moves right on a dark background"
    assert len(tokenizer(said).input_ids) == len(said.split()) + 1
    assert tokenizer(said.upper()).input_ids == tokenizer(said).input_ids
    found = tokenize(tokenizer, texts[::100])
    assert found.shape == (len(texts[::100]), TEXT_TOKENS)
    assert (found[:, -1] == PAD).all()


def test_a_text_that_does_not_fit_is_named(tokenizer):
    with pytest.raises(AssertionError, match="has 31 tokens, TEXT_TOKENS is 24"):
        tokenize(tokenizer, ["red " * 30])


def test_some_words_are_hidden():
    batch = torch.arange(8, 8 + 400 * 10).view(400, 10)
    batch[:, 7:] = PAD
    given, chosen = hide(batch, 5, torch.Generator().manual_seed(0))
    assert not chosen[:, 7:].any()
    assert torch.equal(given[~chosen], batch[~chosen])
    share = chosen[:, :7].float().mean()
    assert 0.25 < share < 0.35
    swapped = given[chosen] != 5
    assert 0 < swapped.float().mean() < 0.2
    assert (given[chosen][swapped] != batch[chosen][swapped]).any()


@pytest.mark.slow
def test_an_encoder_is_the_seeds(tokenizer, texts):
    """Frozen, and other weights than it began with; other randomness is left alone."""
    numbers = tokenize(tokenizer, texts[::400])
    settings = {"vocabulary": len(tokenizer), "mask": tokenizer.convert_tokens_to_ids("<extra_id_0>")}
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    one, same = (train_encoder(numbers, steps=2, **settings) for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    torch.manual_seed(0)
    states = [model.state_dict() for model in (one, same, new_encoder(len(tokenizer)))]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not any(torch.equal(states[0][name], states[2][name]) for name in states[0] if "SelfAttention" in name)
    assert not any(value.requires_grad for value in one.parameters())
    assert one(input_ids=numbers[:2]).last_hidden_state.shape == (2, TEXT_TOKENS, SIZES["d_model"])


def test_tokenizer_and_encoder_appear_together(texts, tmp_path, monkeypatch):
    """An encoder of another tokenizer is never beside it; what else was in their folders of the model is gone."""
    monkeypatch.setattr(text, "sentences", lambda _seed: texts[::40])
    for part in ("tokenizer", "text_encoder"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "old.safetensors").write_text("old")

    def stopped(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(text, "train_encoder", stopped)
        with pytest.raises(KeyboardInterrupt):
            text.main([str(tmp_path), "--steps", "1"])
    assert {file.name for file in tmp_path.rglob("*") if file.is_file()} == {"old.safetensors"}
    text.main([str(tmp_path), "--steps", "1"])
    place = {"device": CPU, "dtype": torch.float32}
    made = load_text_encoder(tmp_path / "text_encoder", tmp_path / "tokenizer", text_tokens=TEXT_TOKENS, **place)
    assert made("a small red circle").shape == (TEXT_TOKENS, SIZES["d_model"])
    assert not list(tmp_path.rglob("old.safetensors"))
