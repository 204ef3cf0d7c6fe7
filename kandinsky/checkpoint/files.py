"""Files of weights: names and shapes of their tensors, and access to each.

Both published forms are read: `.pt` through `torch.load(weights_only=True, mmap=True)` and `.safetensors`, whole or
sharded. On a CPU a tensor stays in the memory-mapped file until somebody changes its dtype.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.gpu_copy import FileSource, MappedSource, Source
from kandinsky.errors import CheckpointError
from kandinsky.text.lines import read_json

Region = tuple[slice, ...]
"""A slice for each of a tensor's first axes."""


class Checkpoint(ABC):
    """Names and shapes of the tensors in a checkpoint, and access to each."""

    path: Path
    shapes: Mapping[str, tuple[int, ...]]

    @abstractmethod
    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        """The tensor called `name` or only some regions of it, on `device`, in the file's dtype."""

    @abstractmethod
    def source(self, name: str) -> Source:
        """The bytes of the tensor called `name`, to be read by several threads."""

    def dtype(self, name: str) -> torch.dtype:
        """Of the tensor in the file."""
        dtype = self.source(name).dtype
        if dtype is None:
            raise CheckpointError(f"{self.path}: {name} has a dtype that is not supported")
        return dtype


class TorchFile(Checkpoint):
    """A `.pt` state dict, memory-mapped."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self._state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (
            Exception
        ) as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... depending on where the file ends
            raise CheckpointError(f"{path} is truncated or not a PyTorch state dict: {_first_line(error)}") from error
        if not isinstance(self._state, dict) or not all(isinstance(value, Tensor) for value in self._state.values()):
            raise CheckpointError(f"{path} is not a state dict: expected a mapping from names to tensors")
        self.shapes = {name: tuple(value.shape) for name, value in self._state.items()}

    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        whole = self._state[name]
        if regions is None:
            return whole.to(device)
        return torch.cat([whole[region].to(device) for region in regions])

    def source(self, name: str) -> Source:
        return MappedSource(self._state[name].contiguous())


class SafetensorsFiles(Checkpoint):
    """One or several `.safetensors` files as one state dict."""

    def __init__(self, path: Path, files: list[Path]):
        self.path = path
        # Kept open: opening maps and reads the header anew, for each of hundreds of tensors.
        self._handles: dict[tuple[Path, str], safe_open] = {}
        self._file_of: dict[str, Path] = {}
        self._entries: dict[str, safetensors_file.Entry] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for file in files:
            with _reading(file):
                handle = self._handle(file, "cpu")
                for name in handle.keys():  # noqa: SIM118  # not a mapping: safe_open has keys() only
                    self._file_of[name] = file
                    shapes[name] = tuple(handle.get_slice(name).get_shape())
            self._entries |= safetensors_file.read_header(file).entries
        self.shapes = shapes

    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        file = self._file_of[name]
        with _reading(file):
            handle = self._handle(file, str(device))
            if regions is None:
                return handle.get_tensor(name)
            whole = handle.get_slice(name)
            return torch.cat([whole[region].to(device) for region in regions])

    def source(self, name: str) -> Source:
        entry = self._entries[name]
        return FileSource(self._file_of[name], entry.start, entry.dtype)

    def _handle(self, file: Path, device: str) -> safe_open:
        if (file, device) not in self._handles:
            self._handles[file, device] = safe_open(file, framework="pt", device=device)
        return self._handles[file, device]


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{file} is truncated or not a safetensors file: {_first_line(error)}") from error


def _indexed(index: Path) -> list[str]:
    """Names of the files that an index of safetensors lists."""
    try:
        names = sorted(set(read_json(index, name="it")["weight_map"].values()))
        outside = [name for name in names if Path(name).name != name]
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} is not an index of weights: {error}") from error
    if outside:
        raise CheckpointError(f"{index} names {outside[0]!r}: allowed are files beside it")
    return names


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def folder_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index names, or the only one.

    Raises:
        FileNotFoundError: one is not there.
        CheckpointError: the index is none, or names something that is not in its folder.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        names = _indexed(index)
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"weights not found: {folder / missing[0]} (named by {index.name})")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"weights not found: no .safetensors file in {folder}")
    return files[:1]
