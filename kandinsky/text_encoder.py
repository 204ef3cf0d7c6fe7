"""Prompt to text embedding: T5-V1.1 without an attention mask, and transformers' tokenizer.

The published system pads every prompt to a fixed length and lets both T5 and the DiT attend the padding, so the
padding is part of the function. Not here: caching, prompt rewriting, negative prompts.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kandinsky.block_stream import RESIDENT, Home
from kandinsky.checkpoint import CheckpointError, load_weights, open_checkpoint, read_config
from kandinsky.safetensors_file import write_module
from kandinsky.t5 import T5Config, T5Encoder

EMBEDDING = ("encoder.embed_tokens.weight", "shared.weight")


class TextEncoder:
    """A T5 encoder and its tokenizer.

    Args:
        model: T5.
        tokenizer: transformers tokenizer with offsets (a "fast" one).
        text_tokens: length to which a prompt is padded or cut.

    Attributes:
        home: entered around every use of the model, see `memory`.
    """

    def __init__(self, model: T5Encoder, tokenizer: Any, *, text_tokens: int):
        self.home: Home = RESIDENT
        self.model = model
        self.tokenizer = tokenizer
        self.text_tokens = text_tokens
        self._calls = 0
        self._graph: _EncoderGraph | None = None

    @property
    def device(self) -> torch.device:
        return self.model.device

    def to(self, device: torch.device) -> None:
        """Move the model, but for the embedding, which stays where it is."""
        self.model.encoder.block.to(device)
        self.model.encoder.final_layer_norm.to(device)
        self._calls, self._graph = 0, None

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
        x = self.model.embed(self.tokenize(text)[0])
        self._calls += 1
        # The first call warms up; from the second on the hundreds of small launches are one graph.
        # A graph keeps addresses: none where weights come and go.
        if self.device.type != "cuda" or self._calls == 1 or self.home is not RESIDENT:
            with self.home:
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


def load_t5(folder: Path, *, device: torch.device, dtype: torch.dtype, progress: bool = False) -> T5Encoder:
    """T5 straight to `device` in `dtype`; its embedding, of which a prompt needs 224 rows, stays on the host.

    Raises:
        FileNotFoundError: a file is missing.
        CheckpointError: the weights are damaged or do not fit `config.json`.
    """
    config = read_config(folder, "model_type", "t5")
    checkpoint = open_checkpoint(folder)
    try:
        with torch.device("meta"):
            model = T5Encoder(T5Config.from_mapping(config))
    except ValueError as error:
        raise CheckpointError(f"{folder / 'config.json'}: {error}") from error
    # Input and shared embedding are one tensor; files hold it under either name.
    tied, source = EMBEDDING if EMBEDDING[1] in checkpoint.shapes else reversed(EMBEDDING)
    settings = {"device": device, "dtype": dtype, "on_host": EMBEDDING, "progress": progress}
    load_weights(model, checkpoint, aliases={tied: source}, **settings)
    return model


def save_t5(model: T5Encoder, folder: Path) -> None:
    """Write a model as transformers would, so that it loads there and here."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.safetensors*"):
        old.unlink()
    state = {name: value for name, value in model.state_dict().items() if name != EMBEDDING[0]}
    write_module(folder / "model.safetensors", state)
    (folder / "config.json").write_text(json.dumps(model.config.to_mapping(), indent=2, sort_keys=True) + "\n")


def load_tokenizer(folder: Path) -> Any:
    """transformers' tokenizer, whose package takes a second to import.

    Raises:
        FileNotFoundError: it is not there.
    """
    if not (folder / "spiece.model").is_file():
        raise FileNotFoundError(f"tokenizer not found: {folder / 'spiece.model'}")
    from transformers import T5Tokenizer

    return T5Tokenizer.from_pretrained(folder, local_files_only=True)


def load_text_encoder(
    folder: Path,
    tokenizer_folder: Path,
    *,
    device: torch.device,
    dtype: torch.dtype,
    text_tokens: int,
    progress: bool = False,
) -> TextEncoder:
    """T5 and its tokenizer; see `load_t5`, `load_tokenizer`."""
    model = load_t5(folder, device=device, dtype=dtype, progress=progress)
    return TextEncoder(model, load_tokenizer(tokenizer_folder), text_tokens=text_tokens)
