"""What tells weights apart: hashes of their content, never names, dates or sizes alone, without reading 21 GB.

`fingerprint` of a checkpoint's tensors takes 25 MB of 11 GB (0.15 s from the page cache; of a memory-mapped `.pt` that
is not in it the system reads all), and a change of some rows of a large tensor alone may go unseen. `file_mark` of a
`.pt` file takes 1 MB of 11 GB (5 ms), and nothing goes unseen, since the file has a checksum of every tensor.
"""

import hashlib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from kandinsky.checkpoint.files import Checkpoint, TorchFile
from kandinsky.checkpoint.folder import visible_files
from kandinsky.checkpoint.gpu_copy import FileSource, OpenFile, Source

WHOLE_CHECKPOINT, WHOLE_TENSOR = 64 * 2**20, 2**20
"""Up to so many bytes a checkpoint, or a tensor of a larger one, counts in whole."""
PIECES, PIECE_BYTES = 65, 1024
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
    sizes = {name: _nbytes(checkpoint, name) for name in sorted(checkpoint.shapes)}
    limit = whole if sum(sizes.values()) <= whole else min(whole, WHOLE_TENSOR)
    for name, size in sizes.items():
        source = checkpoint.source(name)
        digest.update(f"{name} {checkpoint.shapes[name]} {source.dtype}\n".encode())
        digest.update(_content(source, size, limit))
    return digest.hexdigest()[:16]


def _nbytes(checkpoint: Checkpoint, name: str) -> int:
    """Of a tensor; 0 for one of a dtype that is not known here, which no model has."""
    dtype = checkpoint.source(name).dtype
    return 0 if dtype is None else torch.Size(checkpoint.shapes[name]).numel() * dtype.itemsize


def _content(source: Source, size: int, limit: int) -> memoryview:
    """The first `size` bytes, or pieces of them if they are more than `limit`."""
    if size <= limit:
        rows = torch.empty(1, size, dtype=torch.uint8)
        starts = [0]
    else:
        rows = torch.empty(PIECES, PIECE_BYTES, dtype=torch.uint8)
        starts = [(size - PIECE_BYTES) * index // (PIECES - 1) for index in range(PIECES)]
    if rows.numel():
        source.sample(starts, rows)
    return rows.numpy().data


def file_mark(path: Path, *, whole: int = WHOLE_CHECKPOINT) -> str:
    """16 hexadecimal digits that tell `.pt` files apart, damaged ones too.

    PyTorch writes such a file as a zip archive, whose directory has a checksum of every tensor's bytes. Beside these
    count the file's size and samples of it, of a small file all. Where checksums were switched off, tensors count as in
    `fingerprint`.

    Args:
        whole: bytes that a small file has at most.
    """
    size, sums = path.stat().st_size, _checksums(path)
    digest = hashlib.sha256(f"{size} {sums}\n".encode())
    digest.update(_content(FileSource(OpenFile(path), 0, None), size, whole))
    if size > whole and sums and not any(crc for _, crc in sums):
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
    files = [tokenizer / name for name in visible_files(tokenizer)]
    return files_mark([config / "config.json", *files], weights, settings)


def files_mark(files: Iterable[Path], *settings: object) -> str:
    """A hash of small files' names and content, and of whatever else decides."""
    digest = hashlib.sha256(repr(settings).encode())
    for path in files:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
