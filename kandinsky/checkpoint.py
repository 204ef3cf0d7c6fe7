"""Reading weights: shapes first, then tensor by tensor straight to dtype and device, strictly.

A module is built on the meta device, the file's keys and shapes are compared with it before a byte of weights is read,
and each tensor then goes from the file to its place without a second copy: to a GPU through `reading`; on a CPU it
stays in the memory-mapped file where the dtype allows. Both published forms are read: `.pt` through
`torch.load(weights_only=True, mmap=True)` and `.safetensors`, whole or sharded.
Nothing here knows of the hub (see `hub`).
"""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from tqdm import tqdm

from kandinsky import safetensors_file
from kandinsky.config import DiTConfig
from kandinsky.model.dit import DiT
from kandinsky.reading import FileSource, MappedSource, Source, read_all

PATCH_SIZE = (1, 2, 2)
"""Of every published checkpoint; the only size of the DiT that shapes do not tell."""


Region = tuple[slice, ...]
"""A slice for each of a tensor's first axes."""
Shard = Callable[[str, tuple[int, ...]], Sequence[Region] | None]
"""(name, shape) -> the regions of a tensor that are wanted, joined along axis 0; None for all of it."""


class CheckpointError(ValueError):
    """A weight file that is damaged or belongs to something else; the message names the file and the keys."""


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


class _TorchFile(Checkpoint):
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


class _SafetensorsFiles(Checkpoint):
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


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint's names and shapes; no weights are read yet.

    Args:
        path: a `.pt` or `.safetensors` file, or a folder with the `.safetensors` files of a diffusers or
            transformers model.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        CheckpointError: the file is truncated, or not a checkpoint.
    """
    if not path.exists():
        raise FileNotFoundError(f"weights not found: {path}")
    if path.is_dir():
        return _SafetensorsFiles(path, _folder_files(path))
    if path.suffix == ".safetensors":
        return _SafetensorsFiles(path, [path])
    return _TorchFile(path)


def _folder_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder: those that its index names, or the only one."""
    for index in sorted(folder.glob("*.safetensors.index.json")):
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise FileNotFoundError(f"weights not found: {folder / missing[0]} (named by {index.name})")
        return [folder / name for name in names]
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"weights not found: no .safetensors file in {folder}")
    return files[:1]


def read_config(folder: Path, key: str, expected: str) -> dict[str, Any]:
    """The `config.json` of a diffusers or transformers model folder, which says under `key` that it is `expected`.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is not JSON, or describes another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"model configuration not found: {path}")
    try:
        config = json.loads(path.read_text())
        found = config.get(key)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a model configuration: {error}") from error
    if found != expected:
        raise CheckpointError(f"{path} describes {key}={found!r}, not {expected!r}")
    return config


def check_fit(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]]) -> None:
    """Compare names and shapes.

    Raises:
        CheckpointError: names the file and the first missing, unexpected and mis-shaped key.
    """
    shapes = checkpoint.shapes
    complaints = []
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    reshaped = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    if missing:
        complaints.append(f"{len(missing)} missing, first {missing[0]!r}")
    if unexpected:
        complaints.append(f"{len(unexpected)} unexpected, first {unexpected[0]!r}")
    if reshaped:
        name = reshaped[0]
        complaints.append(f"{len(reshaped)} mis-shaped, first {name!r}: file {shapes[name]}, model {expected[name]}")
    if complaints:
        raise CheckpointError(f"{checkpoint.path} does not fit the model: keys {'; '.join(complaints)}")


def load_weights(
    module: nn.Module,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    aliases: Mapping[str, str] | None = None,
    shard: Shard | None = None,
    progress: bool = False,
) -> None:
    """Fill a module that was built on the meta device.

    Args:
        aliases: names in the module that share the tensor of another name (tied weights), and need not be in the file.
        shard: read only parts of some tensors; the module's parameters then have the parts' shapes.

    Raises:
        CheckpointError: the checkpoint does not fit, or is damaged.
    """
    tied = {name: source for name, source in (aliases or {}).items() if name not in checkpoint.shapes}
    expected = {name: tuple(value.shape) for name, value in module.state_dict().items() if name not in tied}
    check_fit(checkpoint, expected)
    state: dict[str, Tensor] = {}
    reads: list[tuple[Source, Tensor]] = []
    for name in tqdm(expected, desc=f"loading {checkpoint.path.name}", disable=not progress, leave=False):
        regions = shard(name, expected[name]) if shard is not None else None
        wanted = _wanted_dtype(name, checkpoint, dtype)
        if device.type == "cuda" and regions is None and wanted == checkpoint.dtype(name):
            state[name] = torch.empty(expected[name], dtype=wanted, device=device)
            reads.append((checkpoint.source(name), state[name]))
            continue
        state[name] = checkpoint.tensor(name, device, regions).to(wanted)
        if regions is not None:
            _resize_(module, name, state[name])
    try:
        read_all(reads)
    except EOFError as error:
        raise CheckpointError(f"{checkpoint.path} is truncated: {error}") from error
    state |= {name: state[source] for name, source in tied.items()}
    module.load_state_dict(state, strict=True, assign=True)
    left = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    assert not left, f"still without weights: {left}"
    module.requires_grad_(False).eval()


def _wanted_dtype(name: str, checkpoint: Checkpoint, dtype: torch.dtype) -> torch.dtype:
    """`dtype` for what is floating; float8 weights and their float32 scales stay what they are."""
    found = checkpoint.dtype(name)
    return found if not found.is_floating_point or found.itemsize == 1 or name.endswith(".scale") else dtype


def is_quantised(checkpoint: Checkpoint) -> bool:
    """Whether the Linears of its blocks are float8 (see `convert`)."""
    return any(name.endswith(".to_query_key_value.scale") for name in checkpoint.shapes)


def _resize_(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter another shape, which a strict `load_state_dict` then expects."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def dit_config(checkpoint: Checkpoint) -> DiTConfig:
    """Sizes of the DiT, read off the shapes in its checkpoint.

    Raises:
        CheckpointError: a key of a DiT is not there.
    """
    shapes = checkpoint.shapes

    def size(name: str, axis: int) -> int:
        if name not in shapes:
            raise CheckpointError(f"{checkpoint.path} is not a Kandinsky 4 DiT: key {name!r} is missing")
        return shapes[name][axis]

    patch = PATCH_SIZE[0] * PATCH_SIZE[1] * PATCH_SIZE[2]
    blocks = {name.split(".")[1] for name in shapes if name.startswith("transformer_blocks.")}
    time_axis, height_axis, width_axis = (2 * size(f"rope_embeddings.args_{axis}", 1) for axis in range(3))
    return DiTConfig(
        in_visual_dim=size("visual_embeddings.in_layer.weight", 1) // patch,
        in_text_dim=size("text_embeddings.in_layer.weight", 1),
        out_visual_dim=size("out_layer.out_layer.weight", 0) // patch,
        time_dim=size("time_embeddings.out_layer.weight", 0),
        patch_size=PATCH_SIZE,
        model_dim=size("visual_embeddings.in_layer.weight", 0),
        ff_dim=size("transformer_blocks.0.0.feed_forward.in_layer.weight", 0),
        num_blocks=len(blocks),
        axes_dims=(time_axis, height_axis, width_axis),
    )


def load_dit(
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    build: Callable[[DiTConfig], DiT] = DiT,
    shard: Shard | None = None,
    progress: bool = False,
) -> DiT:
    """The DiT with its weights, or one rank's part of them, on `device` in `dtype`.

    Args:
        build: makes the module from the sizes, which come from the checkpoint.
        shard: which part of which tensor to read; None reads all.
    """
    with torch.device("meta"):
        dit = build(dit_config(checkpoint))
    if is_quantised(checkpoint):
        from kandinsky.model.float8 import quantise_blocks_

        quantise_blocks_(dit)
    load_weights(dit, checkpoint, device=device, dtype=dtype, shard=shard, progress=progress)
    return dit
