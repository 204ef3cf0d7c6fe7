"""What tells weights apart: hashes of their content, never names, dates or sizes alone, without reading 21 GB.

`fingerprint` of a checkpoint's tensors: of 11 GB it reads 40 MB (0.2 s, from the page cache), and a change of some rows
of a large tensor alone may go unseen. `file_mark` of a `.pt` file: of 11 GB it reads 2 MB, and nothing goes unseen,
since the file has a checksum of every tensor.
"""

import hashlib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kandinsky.checkpoint.files import Checkpoint, TorchFile
from kandinsky.checkpoint.folder import visible_files

WHOLE_CHECKPOINT, WHOLE_TENSOR = 64 * 2**20, 2**20
"""Up to so many bytes a checkpoint, or a tensor of a larger one, counts in whole."""
PIECES, PIECE_BYTES = 129, 1024
"""Of each larger tensor, spread evenly from its first byte over its middle to its last."""


def fingerprint(checkpoint: Checkpoint, *, whole: int = WHOLE_CHECKPOINT) -> str:
    """16 hexadecimal digits that tell checkpoints apart.

    A SHA-256 over each tensor's name, shape and dtype, and its bytes: all of them in a small checkpoint or of a small
    tensor, samples from all over a large one. What is done to a whole tensor (training, a merged LoRA) is seen; what is
    done to a few rows of a large one may not be. Names are those of the model: neither the kind of file nor prefixes
    make a difference.

    Args:
        whole: bytes that a small checkpoint has at most.
    """
    digest = hashlib.sha256()
    cpu = torch.device("cpu")
    tensors = {name: checkpoint.tensor(name, cpu) for name in sorted(checkpoint.shapes)}
    total = sum(value.nbytes for value in tensors.values())
    limit = total if total <= whole else min(whole, WHOLE_TENSOR)
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        content = tensor.contiguous().flatten().view(torch.uint8).numpy()
        digest.update(content.data if len(content) <= limit else _pieces(content, PIECES).data)
    return digest.hexdigest()[:16]


def _pieces(content: Any, count: int) -> Any:
    """Some of the bytes of an array, `[count, PIECE_BYTES]`."""
    starts = ((len(content) - PIECE_BYTES) * index // (count - 1) for index in range(count))
    return np.stack([content[start : start + PIECE_BYTES] for start in starts])


def file_mark(path: Path, *, whole: int = WHOLE_CHECKPOINT) -> str:
    """16 hexadecimal digits that tell `.pt` files apart, damaged ones too.

    PyTorch writes such a file as a zip archive, whose directory has a checksum of every tensor's bytes. Beside these
    count the file's size and samples of it, of a small file all. Where checksums were switched off, tensors count as in
    `fingerprint`.

    Args:
        whole: bytes that a small file has at most.
    """
    content = np.memmap(path, np.uint8, "r") if path.stat().st_size else np.zeros(0, np.uint8)
    digest = hashlib.sha256(f"{len(content)}\n".encode())
    digest.update(content.data if len(content) <= whole else _pieces(content, 8 * PIECES).data)
    sums = _checksums(path)
    digest.update(repr(sums).encode())
    if len(content) > whole and sums and not any(crc for _, crc in sums):
        digest.update(fingerprint(TorchFile(path), whole=whole).encode())
    return digest.hexdigest()[:16]


def _checksums(path: Path) -> list[tuple[str, int]]:
    """Of each file in the archive, without the folder that they are in; empty if it is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            return [(info.filename.partition("/")[2], info.CRC) for info in archive.infolist()]
    except zipfile.BadZipFile:
        return []


def text_mark(weights: str, config: Path, tokenizer: Path, *settings: object) -> str:
    """A hash of all that decides what a prompt's embedding is, besides the prompt.

    Args:
        weights: fingerprint of the text encoder.
        config: its folder, whose `config.json` counts.
        tokenizer: its folder, whose files count in whole, hidden ones not.
        settings: whatever else decides.
    """
    digest = hashlib.sha256(repr((weights, settings)).encode())
    for path in _text_files(config, tokenizer):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _text_files(config: Path, tokenizer: Path) -> Iterator[Path]:
    yield config / "config.json"
    yield from (tokenizer / name for name in visible_files(tokenizer))
