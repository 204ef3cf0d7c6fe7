"""What tells weights apart: hashes of checkpoints and of files, without reading 21 GB."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.checkpoint.files import Checkpoint

SAMPLES, SAMPLE_BYTES = 64, 4096


def fingerprint(checkpoint: Checkpoint) -> str:
    """16 hexadecimal digits that tell checkpoints apart without reading them whole.

    A SHA-256 over each tensor's name, shape and dtype and the bytes of its first, middle and last row (of axis 0): 10
    MB of the 21 GB. A change in other rows alone goes unseen. Whether the file is `.pt` or `.safetensors` makes no
    difference.
    """
    digest = hashlib.sha256()
    cpu = torch.device("cpu")
    for name in sorted(checkpoint.shapes):
        shape = checkpoint.shapes[name]
        rows = (
            [(slice(row, row + 1),) for row in sorted({0, shape[0] // 2, shape[0] - 1})]
            if shape and all(shape)
            else None
        )
        tensor = checkpoint.tensor(name, cpu, rows)
        digest.update(f"{name} {shape} {tensor.dtype}\n".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def files_fingerprint(weights: Path, tokenizer: Path, *settings: object) -> str:
    """A hash of a tokenizer's and a model's files, and of settings.

    Small files count in whole. Of large ones the size and samples count: the first 64 KB, where a safetensors header
    tells names, shapes and places, and 64 pieces of 4 KB from all over.
    """
    digest = hashlib.sha256(repr(settings).encode())
    for folder in (weights, tokenizer):
        for path in sorted(path for path in folder.iterdir() if path.is_file()):
            size = path.stat().st_size
            digest.update(f"{path.name} {size}\n".encode())
            with path.open("rb") as file:
                if size <= 16 * SAMPLES * SAMPLE_BYTES:
                    digest.update(file.read())
                    continue
                digest.update(file.read(65536))
                for index in range(SAMPLES):
                    file.seek((size - SAMPLE_BYTES) * index // (SAMPLES - 1))
                    digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
