"""Prompt to embedding: against the published embedding, padding, and what happens to long prompts."""

import re
import threading
import warnings

import pytest
import torch
from helpers import TINY, golden_case, relative_error

from kandinsky.factory import get_T2V_pipeline
from kandinsky.text.encoder import TextEncoder


@pytest.fixture(scope="module")
def encoder(pipe):
    return pipe.text_encoder.encoder


@pytest.mark.parametrize("case", ["image", "video_1s"])
def test_equals_published(golden_pipe, case):
    call, expected = golden_case(case)
    assert relative_error(golden_pipe.text_encoder(call["text"]), expected["text_embed"]) < 3e-2


@pytest.mark.parametrize("prompt", ["", "a cat", "slowly " * 300, "  spaces \n and lines ", "naïve 猫 🎬"])
@pytest.mark.filterwarnings("ignore:prompt has")
def test_tokens_are_those_of_the_published_call(encoder, prompt):
    settings = {"truncation": True, "add_special_tokens": True, "padding": "max_length", "return_tensors": "pt"}
    expected = encoder.tokenizer(prompt, max_length=224, **settings).input_ids
    assert torch.equal(encoder.tokenize(prompt), expected)


def test_padding_is_attended(encoder):
    """No mask: the same words with other padding give another embedding, as published."""
    embedding = encoder("a cat")
    ids = encoder.tokenize("a cat")
    words = ids[:, : int((ids != 0).sum())]
    with torch.no_grad():
        unpadded = encoder.model(words[0])
    assert embedding.shape == (224, 64)
    assert relative_error(embedding[: words.shape[1]], unpadded) > 1e-3


def test_long_prompt_is_cut_with_a_warning(encoder):
    prompt = "a cat sleeps " * 200 + "THE END"
    with pytest.warns(UserWarning, match=r"223 are used; cut: .*cat sleeps"):
        ids = encoder.tokenize(prompt)
    assert ids.shape == (1, 224)
    assert ids[0, -1] == 1  # the end mark


def test_what_is_cut_is_what_was_not_used(encoder):
    words = ["slowly" if index % 3 else "background" for index in range(300)]
    with pytest.warns(UserWarning, match="cut: ") as caught:
        ids = encoder.tokenize(" ".join(words))
    kept = encoder.tokenizer.decode(ids[0, :-1])
    beginning = re.search(r"cut: '(.*)\.\.\. \((\d+) characters\)", str(caught[0].message))
    assert beginning
    assert "".join(words).startswith(kept.replace(" ", "") + beginning[1].replace(" ", ""))
    assert len(" ".join(words)) - int(beginning[2]) == pytest.approx(len(kept), abs=1)


def test_short_prompt_does_not_warn(encoder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encoder.tokenize("").shape == (1, 224)


def test_another_length(encoder):
    shorter = TextEncoder(encoder.model, encoder.backend, text_tokens=12)
    assert shorter("a cat").shape == (12, 64)
    assert torch.equal(shorter.tokenize("a cat"), encoder.tokenize("a cat")[:, :12])


def test_weights_come_for_each_use(encoder):
    """And only for a use: to look at tokens needs none."""
    seen = []

    class Home:
        def __enter__(self):
            seen.append("came")

        def __exit__(self, *_):
            seen.append("left")

    visiting = TextEncoder(encoder.model, encoder.backend, text_tokens=224, home=Home())
    visiting.tokenize("a cat")
    assert seen == []
    for _ in range(2):
        assert torch.equal(visiting("a cat"), encoder("a cat"))
    assert seen == ["came", "left"] * 2
    assert not visiting.is_resident
    assert encoder.is_resident


def test_threads_wait_for_each_other(encoder):
    """Its weights and its graph are there once."""
    inside, most = [], []

    class Home:
        def __enter__(self):
            inside.append(1)
            most.append(len(inside))

        def __exit__(self, *_):
            inside.pop()

    shared = TextEncoder(encoder.model, encoder.backend, text_tokens=224, home=Home())
    threads = [threading.Thread(target=shared, args=("a cat",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 8


@pytest.mark.gpu
def test_text_encoder_graph_equals_eager():
    encoder = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False).text_encoder.encoder
    eager, captured, replayed = (encoder("a cat") for _ in range(3))
    other = encoder("a dog")
    assert torch.equal(eager, captured)
    assert torch.equal(eager, replayed)
    assert not torch.equal(eager, other)
