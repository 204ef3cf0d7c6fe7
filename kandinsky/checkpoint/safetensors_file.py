"""The safetensors format where the library's own functions do not reach: places of tensors, and writing without a copy.

A file is 8 bytes (length of the header, little endian), the header in JSON (dtype, shape, place of each tensor) and the
tensors' bytes. `safetensors.torch.save_file` would hold all bytes of a model in memory once more.
"""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.atomic import replacing
from kandinsky.errors import CheckpointError

_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
DTYPES = {name: dtype for dtype, name in _NAMES.items()}
MAX_HEADER = 100_000_000


@dataclass(frozen=True)
class Entry:
    """One tensor: `start` and `stop` are bytes from the file's beginning."""

    dtype: torch.dtype | None
    shape: tuple[int, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Header:
    """What a file says of itself; `size` is the length in bytes that it should have."""

    entries: Mapping[str, Entry]
    metadata: Mapping[str, str]
    size: int


def read_header(path: Path) -> Header:
    """Names, dtypes, shapes and places; no tensor is read.

    Raises:
        CheckpointError: not a safetensors file, or cut within its header.
    """
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        text = file.read(length) if length <= MAX_HEADER else b""
    try:
        content = json.loads(text)
        metadata = content.pop("__metadata__", {})
        begin = 8 + length
        entries = {}
        for name, entry in content.items():
            start, stop = entry["data_offsets"]
            entries[name] = Entry(DTYPES.get(entry["dtype"]), tuple(entry["shape"]), begin + start, begin + stop)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a safetensors file: {error}") from error
    return Header(entries, metadata, max((entry.stop for entry in entries.values()), default=begin))


def write(
    path: Path,
    layout: Mapping[str, tuple[torch.dtype, tuple[int, ...]]],
    tensors: Iterable[tuple[str, Tensor]],
    *,
    metadata: Mapping[str, str],
    on_tensor: Callable[[str], object] = lambda _name: None,
) -> None:
    """Write a file, whole or not at all.

    Args:
        layout: dtype and shape of every tensor, in the order in which `tensors` brings them.
        on_tensor: called after each with its name.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": _NAMES[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of 8 bytes
    with replacing(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name, tensor in tensors:
            assert (tensor.dtype, tuple(tensor.shape)) == layout[name], name
            file.write(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data)
            on_tensor(name)
        file.flush()
        os.fsync(file.fileno())


def write_module(path: Path, state: Mapping[str, Tensor]) -> None:
    """Write a module's `state_dict`; `transformers` and `diffusers` read it too."""
    layout = {name: (value.dtype, tuple(value.shape)) for name, value in state.items()}
    write(path, layout, state.items(), metadata={"format": "pt"})
