"""Embeddings of prompts that were encoded before, in host memory and, if a folder is given, on disk.

An embedding's key is a hash of the prompt and of whatever else decides it: the tokenizer's files, the weights, the
length, the dtype and the kind of device. With a folder T5 is loaded at the first prompt that is not in it, which may be
never. A file of the cache that cannot be read is a miss. Not here: eviction from disk; the folder may be deleted.
"""

import hashlib
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from threading import RLock
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.text.encoder import TextEncoder

KEPT = 64
"""Embeddings in host memory, 1.8 MB each at full size."""


class PromptCache:
    """A text encoder that remembers; called like one.

    Args:
        load: makes the encoder.
        device: where embeddings are wanted: the encoder's.
        fingerprint: of all that decides an embedding besides the prompt.
        is_resident: whether the encoder's weights stay where they are, once it is loaded.
        folder: for embeddings that outlast the process; None keeps them in memory only.
    """

    def __init__(
        self,
        load: Callable[[], TextEncoder],
        *,
        device: torch.device,
        fingerprint: str,
        is_resident: bool,
        folder: Path | None = None,
    ):
        self._load = load
        self._encoder: TextEncoder | None = None
        self.device = device
        self.fingerprint = fingerprint
        self.is_resident = is_resident
        self.folder = folder
        self._lock = RLock()
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def encoder(self) -> TextEncoder:
        """Loaded now if it is not yet."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._load()
            return self._encoder

    @property
    def model(self) -> Any:
        """Of the encoder."""
        return self.encoder.model

    @property
    def tokenizer(self) -> Any:
        """Of the encoder."""
        return self.encoder.tokenizer

    def to(self, device: torch.device) -> None:
        """Move the encoder."""
        self.encoder.to(device)
        self.device = device

    def __call__(self, text: str) -> Tensor:
        """`[text_tokens, text_dim]` on the device. A prompt that is too long is warned of only when it is encoded."""
        with self._lock:
            return self._embedding(text)

    def _embedding(self, text: str) -> Tensor:
        key = hashlib.sha256(f"{self.fingerprint}\n{text}".encode()).hexdigest()
        embedding = self._kept.get(key)
        if embedding is None:
            embedding = self._read(key)
        if embedding is None:
            fresh = self.encoder(text)
            self._keep(key, fresh.cpu())
            self._write(key, self._kept[key])
            return fresh
        self._keep(key, embedding)
        return embedding.to(self.device)

    def _keep(self, key: str, embedding: Tensor) -> None:
        self._kept[key] = embedding
        self._kept.move_to_end(key)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)

    def _path(self, folder: Path, key: str) -> Path:
        return folder / f"{key[:32]}.safetensors"

    def _read(self, key: str) -> Tensor | None:
        if self.folder is None or not self._path(self.folder, key).is_file():
            return None
        path = self._path(self.folder, key)
        try:
            return load_file(path)["embedding"]
        except (SafetensorError, KeyError, OSError) as error:
            warnings.warn(f"{path} is damaged ({error}); the prompt is encoded again", UserWarning, stacklevel=3)
            return None

    def _write(self, key: str, embedding: Tensor) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self._path(self.folder, key)) as path:
                save_file({"embedding": embedding.contiguous()}, path)
        except (OSError, SafetensorError) as error:
            warnings.warn(f"prompt_cache={str(self.folder)!r}: not written ({error})", UserWarning, stacklevel=3)
