"""Files of weights: names and shapes of their tensors, and access to each.

Both published forms are read: `.pt` through `torch.load(weights_only=True, mmap=True)` and `.safetensors`, whole or
sharded. On a CPU a tensor stays in the memory-mapped file until somebody changes its dtype.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.folder import WeightFiles
from kandinsky.checkpoint.gpu_copy import FileSource, MappedSource, OpenFile, Source
from kandinsky.checkpoint.names import first_of, state_dict_in
from kandinsky.checkpoint.pointer import check_no_pointer
from kandinsky.errors import CheckpointError

Region = tuple[slice, ...]
"""A slice for each of a tensor's first axes."""
_OBJECT = re.compile(r"Unsupported global: GLOBAL (\S+)")


class Checkpoint(ABC):
    """Names and shapes of the tensors in a checkpoint, and access to each.

    Args:
        notes: how its names differ from the file's and what of the file is passed over, for whoever loads it.
    """

    path: Path
    shapes: Mapping[str, tuple[int, ...]]
    notes: tuple[str, ...] = ()

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
    """A `.pt` state dict, memory-mapped; it may be within the dict of a training run."""

    def __init__(self, path: Path):
        self.path = path
        check_no_pointer(path)
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (
            Exception
        ) as error:  # torch raises RuntimeError, UnpicklingError, EOFError, ... depending on where the file ends
            raise CheckpointError(f"{path} {_not_loaded(error)}") from error
        try:
            state, wrappers, beside = state_dict_in(content)
        except ValueError as error:
            raise CheckpointError(f"{path} {error}") from None
        self._state = {name: value.detach() for name, value in state.items()}  # some have parameters
        self.shapes = {name: tuple(value.shape) for name, value in self._state.items()}
        taken = [f"the state dict is taken from its {' / '.join(map(repr, wrappers))}"] if wrappers else []
        passed = [f"passed over: {first_of(beside, thing='entries')}"] if beside else []
        self.notes = (*taken, *passed)

    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        return _on(self._state[name], device, regions)

    def source(self, name: str) -> Source:
        return MappedSource(self._state[name].contiguous())


class SafetensorsFiles(Checkpoint):
    """One or several `.safetensors` files as one state dict."""

    def __init__(self, path: Path, weights: WeightFiles):
        self.path = path
        # Kept open: opening maps and reads the header anew, for each of hundreds of tensors; and what is read later is
        # read from these files, not from others that have taken their names.
        self._handles: dict[tuple[Path, str], safe_open] = {}
        self._opened = {file: OpenFile(file) for file in weights.files}
        self._file_of: dict[str, Path] = {}
        self._entries: dict[str, safetensors_file.Entry] = {}
        shapes: dict[str, tuple[int, ...]] = {}
        for file in weights.files:
            check_no_pointer(file)
            with _reading(file):
                handle = self._handle(file, "cpu")
                names = [name for name in handle.keys() if weights.file_of.get(name, file) == file]  # noqa: SIM118  # not a mapping: safe_open has keys() only
                shapes |= {name: tuple(handle.get_slice(name).get_shape()) for name in names}
            entries = safetensors_file.read_header(file).entries
            self._file_of |= dict.fromkeys(names, file)
            self._entries |= {name: entries[name] for name in names}
        absent = [name for name in weights.file_of if name not in shapes]
        if absent:
            raise CheckpointError(f"{weights.file_of[absent[0]]} does not hold {absent[0]!r}, which its index says")
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
        return FileSource(self._opened[self._file_of[name]], entry.start, entry.dtype)

    def _handle(self, file: Path, device: str) -> safe_open:
        if (file, device) not in self._handles:
            self._handles[file, device] = safe_open(file, framework="pt", device=device)
        return self._handles[file, device]


class Renamed(Checkpoint):
    """A checkpoint under other names, with tensors that its file does not have.

    Args:
        names: each with the name in `checkpoint`.
        added: further tensors, on the host.
        notes: besides those of `checkpoint`.
    """

    def __init__(
        self, checkpoint: Checkpoint, names: Mapping[str, str], added: Mapping[str, Tensor], notes: Sequence[str]
    ):
        self.path = checkpoint.path
        self.notes = (*checkpoint.notes, *notes)
        self.shapes = {name: checkpoint.shapes[old] for name, old in names.items()}
        self.shapes |= {name: tuple(value.shape) for name, value in added.items()}
        self._checkpoint, self._names, self._added = checkpoint, names, added

    def tensor(self, name: str, device: torch.device, regions: Sequence[Region] | None = None) -> Tensor:
        if name in self._added:
            return _on(self._added[name], device, regions)
        return self._checkpoint.tensor(self._names[name], device, regions)

    def source(self, name: str) -> Source:
        return MappedSource(self._added[name]) if name in self._added else self._checkpoint.source(self._names[name])


def _on(whole: Tensor, device: torch.device, regions: Sequence[Region] | None) -> Tensor:
    if regions is None:
        return whole.to(device)
    return torch.cat([whole[region].to(device) for region in regions])


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except SafetensorError as error:
        raise CheckpointError(f"{file} is truncated or not a safetensors file: {_first_line(error)}") from error


def _not_loaded(error: Exception) -> str:
    """Why PyTorch does not load a file; its own message for objects advises to run what they say."""
    if found := _OBJECT.search(str(error)):
        return f"holds an object, {found[1]}: not loaded, since it could run anything; save its state dict by itself"
    return f"is truncated or not a PyTorch state dict: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
