"""Prompt to text embedding: T5-V1.1 through transformers, without an attention mask.

The published system pads every prompt to a fixed length and lets both T5 and the DiT attend the padding, so the
padding is part of the function. Not here: caching, prompt rewriting, negative prompts.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.block_stream import RESIDENT, Home
from kandinsky.checkpoint import load_weights, open_checkpoint, read_config


def fuse_(model: Any) -> None:
    """Put one kernel where transformers' T5 runs several: PyTorch's RMSNorm and tanh GELU, the same functions."""
    from transformers.models.t5.modeling_t5 import T5DenseGatedActDense, T5LayerNorm

    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, T5LayerNorm):
                norm = torch.nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, device="meta")
                norm.weight = child.weight
                setattr(module, name, norm)
        if isinstance(module, T5DenseGatedActDense) and model.config.dense_act_fn == "gelu_new":
            module.act = torch.nn.GELU(approximate="tanh")


class TextEncoder:
    """A T5 encoder and its tokenizer.

    Args:
        model: transformers `T5EncoderModel`.
        tokenizer: transformers tokenizer with offsets (a "fast" one).
        text_tokens: length to which a prompt is padded or cut.

    Attributes:
        home: entered around every use of the model, see `memory`.
    """

    def __init__(self, model: Any, tokenizer: Any, *, text_tokens: int):
        fuse_(model)
        self.home: Home = RESIDENT
        self.model = model
        self.tokenizer = tokenizer
        self.text_tokens = text_tokens
        self._calls = 0
        self._graph: _EncoderGraph | None = None

    @property
    def device(self) -> torch.device:
        """Where it runs; its last norm is there even while the other weights are not."""
        return self.model.encoder.final_layer_norm.weight.device

    def tokenize(self, text: str) -> Tensor:
        """Token ids, int64 `[1, text_tokens]`; warns with what is cut when the prompt is too long."""
        encoded = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
        room = self.text_tokens - 1  # one token is the end mark
        if len(encoded.input_ids) > room:
            cut = text[encoded.offset_mapping[room][0] :]
            warnings.warn(
                f"prompt has {len(encoded.input_ids)} tokens, {room} are used; cut: {cut!r}", UserWarning, stacklevel=2
            )
        ids = [*encoded.input_ids[:room], self.tokenizer.eos_token_id]
        return torch.tensor([ids + [self.tokenizer.pad_token_id] * (self.text_tokens - len(ids))])

    @torch.inference_mode()
    def __call__(self, text: str) -> Tensor:
        """`[text_tokens, text_dim]` in the model's dtype, on its device."""
        ids = self.tokenize(text).to(self.device)
        self._calls += 1
        # The first call warms up; from the second on the hundreds of small launches are one graph.
        # A graph keeps addresses: none where weights come and go.
        if self.device.type != "cuda" or self._calls == 1 or self.home is not RESIDENT:
            with self.home:
                return self.model(ids).last_hidden_state[0]
        if self._graph is None:
            self._graph = _EncoderGraph(self.model, ids)
        return self._graph(ids)


class _EncoderGraph:
    """T5 as a CUDA graph: launched one by one, its many small kernels cost the host more time than the GPU."""

    def __init__(self, model: Any, ids: Tensor):
        self.ids = ids.clone()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(ids.device), torch.cuda.graph(self.graph):
            self.output: Tensor = model(self.ids).last_hidden_state[0]

    def __call__(self, ids: Tensor) -> Tensor:
        with torch.cuda.device_of(ids):
            self.ids.copy_(ids)
            self.graph.replay()
            return self.output.clone()


def load_text_encoder(
    folder: Path,
    tokenizer_folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    text_tokens: int,
    progress: bool = False,
) -> TextEncoder:
    """T5 straight to `device` in `dtype`, and its tokenizer.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    if not (tokenizer_folder / "spiece.model").is_file():
        raise FileNotFoundError(f"tokenizer not found: {tokenizer_folder / 'spiece.model'}")
    config = read_config(folder, "model_type", "t5")
    checkpoint = open_checkpoint(folder)
    with torch.device("meta"):
        model = T5EncoderModel(T5Config.from_dict(config))
    # Input and shared embedding are one tensor; files hold it under either name.
    names = ("shared.weight", "encoder.embed_tokens.weight")
    tied, source = names if names[0] not in checkpoint.shapes else reversed(names)
    load_weights(model, checkpoint, device=device, dtype=dtype, aliases={tied: source}, progress=progress)
    tokenizer = T5Tokenizer.from_pretrained(tokenizer_folder, local_files_only=True)
    return TextEncoder(model, tokenizer, text_tokens=text_tokens)
