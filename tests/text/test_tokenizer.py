"""The tokenizer as it runs: what transformers' own makes of a text."""

import json

import pytest
from helpers import TINY
from transformers import T5Tokenizer

from kandinsky.text.tokenizer import BackendTokenizer, json_of_transformers

TEXTS = (
    "", " ", "a cat", "  spaces \n and\tlines ", "naïve 猫 🎬 ﬁ ①", "</s> in <pad> it <extra_id_3>", "word " * 300,
    "e\u0301 \u200b \x00 \ufeff", "A" * 5000,
)  # fmt: skip


@pytest.fixture(scope="module", params=[TINY, TINY.parents[1] / "weights" / "tiny"], ids=["random", "trained"])
def theirs(request):
    return T5Tokenizer.from_pretrained(request.param / "tokenizer", local_files_only=True)


def ours(theirs):
    return BackendTokenizer.from_json(json_of_transformers(theirs), lambda: theirs)


@pytest.mark.parametrize("text", TEXTS)
def test_numbers_and_offsets(theirs, text):
    expected = theirs(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    assert ours(theirs)(text) == (expected.input_ids, expected.offset_mapping)


def test_what_transformers_was_asked_last_does_not_matter(theirs):
    """It leaves truncation and padding in the tokenizer that both would share."""
    theirs("a cat sleeps", max_length=2, truncation=True, padding="max_length")
    expected = theirs("a cat sleeps", add_special_tokens=False).input_ids
    theirs("a cat sleeps", max_length=2, truncation=True, padding="max_length")
    assert ours(theirs)("a cat sleeps")[0] == expected
    assert ours(theirs)("a")[0] == theirs("a", add_special_tokens=False).input_ids


def test_special_tokens_in_a_text(theirs):
    """Whether they are special there is a setting of transformers' that the backend's JSON does not have."""
    text, settings, found = "a <extra_id_3> b", json.loads(json_of_transformers(theirs)), []
    for split in (False, True):
        tokenizer = BackendTokenizer.from_json(json.dumps({**settings, "split_special_tokens": split}), lambda: theirs)
        found.append(tokenizer(text)[0])
        assert found[-1] == theirs(text, add_special_tokens=False, split_special_tokens=split).input_ids
    assert len(found[0]) < len(found[1])


def test_marks(theirs):
    tokenizer = ours(theirs)
    assert (tokenizer.end, tokenizer.padding) == (theirs.eos_token_id, theirs.pad_token_id)
    assert tokenizer.open_transformers() is theirs
