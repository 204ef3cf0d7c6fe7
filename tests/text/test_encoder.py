"""Prompt to embedding: against the published embedding, padding, and what happens to long prompts."""

import re
import shutil
import warnings

import pytest
import torch
from helpers import TINY, golden_case, relative_error
from transformers import T5EncoderModel

from kandinsky.errors import CheckpointError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.components import load_text_encoder

CPU = torch.device("cpu")


@pytest.mark.parametrize("case", ["image", "video_1s"])
def test_equals_published(golden_pipe, case):
    call, expected = golden_case(case)
    assert relative_error(golden_pipe.text_encoder(call["text"]), expected["text_embed"]) < 3e-2


@pytest.mark.parametrize("prompt", ["", "a cat", "slowly " * 300, "  spaces \n and lines ", "naïve 猫 🎬"])
@pytest.mark.filterwarnings("ignore:prompt has")
def test_tokens_are_those_of_the_published_call(pipe, prompt):
    settings = {"truncation": True, "add_special_tokens": True, "padding": "max_length", "return_tensors": "pt"}
    expected = pipe.text_encoder.tokenizer(prompt, max_length=224, **settings).input_ids
    assert torch.equal(pipe.text_encoder.tokenize(prompt), expected)


def test_model_is_transformers_own(pipe):
    plain = T5EncoderModel.from_pretrained(TINY / "text_encoder", dtype=torch.float32)
    ids = pipe.text_encoder.tokenize("a cat sleeps")
    with torch.no_grad():
        expected = plain(ids).last_hidden_state[0]
    assert relative_error(pipe.text_encoder("a cat sleeps"), expected) < 1e-6


def test_another_t5_is_refused(tmp_path):
    folder = shutil.copytree(TINY / "text_encoder", tmp_path / "text_encoder")
    config = (folder / "config.json").read_text()
    for content, message in ((config.replace("gated-gelu", "relu"), "'relu'; supported: 'gated-gelu'"), ("{}", "t5")):
        (folder / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=message):
            load_text_encoder(folder, TINY / "tokenizer", device=CPU, dtype=torch.float32, text_tokens=224)


def test_padding_is_attended(pipe):
    """No mask: the same words with other padding give another embedding, as published."""
    embedding = pipe.text_encoder("a cat")
    ids = pipe.text_encoder.tokenize("a cat")
    words = ids[:, : int((ids != 0).sum())]
    with torch.no_grad():
        unpadded = pipe.text_encoder.model(words[0])
    assert embedding.shape == (224, 64)
    assert relative_error(embedding[: words.shape[1]], unpadded) > 1e-3


def test_long_prompt_is_cut_with_a_warning(pipe):
    prompt = "a cat sleeps " * 200 + "THE END"
    with pytest.warns(UserWarning, match=r"223 are used; cut: .*cat sleeps"):
        ids = pipe.text_encoder.tokenize(prompt)
    assert ids.shape == (1, 224)
    assert ids[0, -1] == 1  # the end mark


def test_what_is_cut_is_what_was_not_used(pipe):
    words = ["slowly" if index % 3 else "background" for index in range(300)]
    with pytest.warns(UserWarning, match="cut: ") as caught:
        ids = pipe.text_encoder.tokenize(" ".join(words))
    kept = pipe.text_encoder.tokenizer.decode(ids[0, :-1])
    beginning = re.search(r"cut: '(.*)\.\.\. \((\d+) characters\)", str(caught[0].message))
    assert beginning
    assert "".join(words).startswith(kept.replace(" ", "") + beginning[1].replace(" ", ""))
    assert len(" ".join(words)) - int(beginning[2]) == pytest.approx(len(kept), abs=1)


def test_short_prompt_does_not_warn(pipe):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pipe.text_encoder.tokenize("").shape == (1, 224)


@pytest.mark.gpu
def test_text_encoder_graph_equals_eager():
    encoder = get_T2V_pipeline("cuda", cache_dir=TINY, progress=False).text_encoder.encoder
    eager, captured, replayed = (encoder("a cat") for _ in range(3))
    other = encoder("a dog")
    assert torch.equal(eager, captured)
    assert torch.equal(eager, replayed)
    assert not torch.equal(eager, other)
