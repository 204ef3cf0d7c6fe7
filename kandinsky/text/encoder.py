"""Prompt to text embedding: T5-V1.1 without an attention mask, and its tokenizer.

The published system pads every prompt to a fixed length and lets both T5 and the DiT attend the padding, so the
padding is part of the function. Not here: caching, prompt rewriting, negative prompts.
"""

import warnings
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from kandinsky.errors import shown
from kandinsky.text.t5 import T5Encoder
from kandinsky.text.tokenizer import BackendTokenizer


class TextEncoder:
    """A T5 encoder and its tokenizer.

    Args:
        model: T5.
        backend: its tokenizer.
        text_tokens: length to which a prompt is padded or cut.
        home: entered around every use of the model, brings its weights and takes them away again (see `memory`); None
            where they stay.
    """

    def __init__(
        self,
        model: T5Encoder,
        backend: BackendTokenizer,
        *,
        text_tokens: int,
        home: AbstractContextManager[None] | None = None,
    ):
        self.home = home
        self.model = model
        self.backend = backend
        self.text_tokens = text_tokens
        self._lock = Lock()
        self._calls = 0
        self._graph: _EncoderGraph | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    @cached_property
    def tokenizer(self) -> Any:
        """transformers' tokenizer, opened when it is first asked for: nothing here needs it."""
        return self.backend.open_transformers()

    @property
    def is_resident(self) -> bool:
        """Whether the weights stay where they are."""
        return self.home is None

    def to(self, device: torch.device) -> None:
        """Move the model, but for the embedding, which stays where it is."""
        self.model.encoder.block.to(device)
        self.model.encoder.final_layer_norm.to(device)
        self._calls, self._graph = 0, None

    def tokenize(self, text: str) -> Tensor:
        """Token ids, int64 `[1, text_tokens]`; warns with what is cut when the prompt is too long."""
        found, offsets = self.backend(text)
        room = self.text_tokens - 1  # one token is the end mark
        if len(found) > room:
            cut = text[offsets[room][0] :]
            said = f"prompt has {len(found)} tokens, {room} are used; cut: {shown(cut)}"
            warnings.warn(said, UserWarning, stacklevel=2)
        ids = [*found[:room], self.backend.end]
        return torch.tensor([ids + [self.backend.padding] * (self.text_tokens - len(ids))])

    def __call__(self, text: str) -> Tensor:
        """`[text_tokens, text_dim]` in the model's dtype, on its device; threads that call it wait for each other."""
        with self._lock, torch.inference_mode():  # its graph has one input buffer
            return self._encode(text)

    def _encode(self, text: str) -> Tensor:
        x = self.model.embed(self.tokenize(text)[0])
        self._calls += 1
        # The first call warms up; from the second on the hundreds of small launches are one graph.
        # A graph keeps addresses: none where weights come and go.
        if self.device.type != "cuda" or self._calls == 1 or self.home is not None:
            with self.home or nullcontext():
                return self.model.encoder(x)
        if self._graph is None:
            self._graph = _EncoderGraph(self.model, x)
        return self._graph(x)


class _EncoderGraph:
    """T5 as a CUDA graph: launched one by one, its many small kernels cost the host more time than the GPU."""

    def __init__(self, model: T5Encoder, x: Tensor):
        self.x = x.clone()
        self.graph = torch.cuda.CUDAGraph()
        # Its own stream: PyTorch's for captures is one for the whole process, on the GPU that had the first of them.
        with torch.cuda.device(x.device), torch.cuda.graph(self.graph, stream=torch.cuda.Stream(x.device)):
            self.output: Tensor = model.encoder(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        with torch.cuda.device_of(x):
            self.x.copy_(x)
            self.graph.replay()
            return self.output.clone()
