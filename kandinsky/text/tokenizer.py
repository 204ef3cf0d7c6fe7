"""T5's tokenizer as it runs: the Rust one of the package tokenizers, which transformers builds and wraps.

Which pieces there are and how a text is cut comes from transformers, once; what it built is a text in JSON, from which
the same tokenizer is there without transformers, whose import takes half as long as PyTorch's.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BackendTokenizer:
    """A text to the numbers of its tokens.

    Args:
        backend: a `tokenizers.Tokenizer` that neither cuts nor pads.
        end: number of the token that ends a text.
        padding: number of the token that fills up.
        open_transformers: gives transformers' tokenizer of the same files.
    """

    backend: Any
    end: int
    padding: int
    open_transformers: Callable[[], Any]

    @classmethod
    def from_json(cls, content: str, open_transformers: Callable[[], Any]) -> "BackendTokenizer":
        """What `json_of_transformers` wrote."""
        from tokenizers import Tokenizer

        found = json.loads(content)
        backend = Tokenizer.from_str(found["tokenizer"])
        backend.no_truncation()
        backend.no_padding()
        backend.encode_special_tokens = found["split_special_tokens"]
        return cls(backend, found["end"], found["padding"], open_transformers)

    def __call__(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Numbers of the tokens, without one for the end, and from where to where in the text each of them is."""
        encoded = self.backend.encode(text, add_special_tokens=False)
        return encoded.ids, encoded.offsets


def json_of_transformers(tokenizer: Any) -> str:
    """All that decides what transformers' tokenizer makes of a text, which is one with offsets (a "fast" one)."""
    found = {
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "end": tokenizer.eos_token_id,
        "padding": tokenizer.pad_token_id,
        "split_special_tokens": tokenizer.split_special_tokens,
    }
    return json.dumps(found)
