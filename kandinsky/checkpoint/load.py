"""Modules from weight files: shapes first, then the tensors straight to device and dtype, strictly.

A module is built on the meta device, the file's keys and shapes are compared with it before a byte of weights is read,
and each tensor then goes from the file to its place without a second copy: to a GPU through `gpu_copy`, by
several threads. Nothing here knows of the hub (see `locate`).
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from kandinsky.checkpoint.files import Checkpoint, Region, Renamed, SafetensorsFiles, TorchFile
from kandinsky.checkpoint.folder import WeightFiles, weight_files
from kandinsky.checkpoint.gpu_copy import read_all
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.names import DIT, described, first_of, own_names
from kandinsky.config import DiTConfig
from kandinsky.errors import CheckpointError
from kandinsky.model import sizes
from kandinsky.model.rope import axis_angles

CHANGED_BYTES = 10**9
"""Where a GPU changes the dtype, about so much is there in both at once."""
Shard = Callable[[str, tuple[int, ...]], Sequence[Region] | None]
"""(name, shape) -> the regions of a tensor that are wanted, joined along axis 0; None for all of it."""


def open_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint's names and shapes; no weights are read yet.

    Wrappers around the state dict and prefixes of names that are no part of the model are taken off; a DiT's tables of
    angles are added where the file has none.

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
        return _as_the_model_has_it(SafetensorsFiles(path, weight_files(path)))
    if path.suffix == ".safetensors":
        return _as_the_model_has_it(SafetensorsFiles(path, WeightFiles((path,))))
    return _as_the_model_has_it(TorchFile(path))


def _as_the_model_has_it(checkpoint: Checkpoint) -> Checkpoint:
    try:
        names, taken = own_names(checkpoint.shapes)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} {error}") from None
    added = _rope_tables(checkpoint, names)
    if not taken and not added:
        return checkpoint
    notes = [f"names are taken without {', '.join(map(repr, taken))}"] if taken else []
    return Renamed(checkpoint, names, added, notes)


def _rope_tables(checkpoint: Checkpoint, names: Mapping[str, str]) -> dict[str, Tensor]:
    """The tables of angles that a DiT's file does not have, rounded as the file's own would be."""
    absent = [name for name in sizes.ROPE if name not in names]
    if not absent or not names.keys() >= set(DIT):
        return {}
    try:
        axes = sizes.axes_dims({name: checkpoint.shapes[old] for name, old in names.items()})
    except ValueError:  # whoever asks for the sizes is told
        return {}
    dtype = checkpoint.dtype(names[DIT[0]])
    return {name: axis_angles(dim).to(dtype) for name, dim in zip(sizes.ROPE, axes, strict=True) if name in absent}


def read_config(folder: Path, key: str, expected: str) -> dict[str, Any]:
    """The `config.json` of a diffusers or transformers model folder, which says under `key` that it is `expected`.

    Raises:
        FileNotFoundError: there is none.
        CheckpointError: it is not JSON, or describes another model.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"model configuration not found: {path}")
    config = json_of(path, what="a model configuration")
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} is not a model configuration: expected an object")
    if config.get(key) != expected:
        raise CheckpointError(f"{path} describes {key}={config.get(key)!r}, not {expected!r}")
    return config


def check_fit(checkpoint: Checkpoint, expected: Mapping[str, tuple[int, ...]], *, prefix: str = "") -> None:
    """Compare names and shapes of all tensors, or of those whose names begin with `prefix`.

    What the file has besides is warned of, and so is what was taken off.

    Raises:
        CheckpointError: names the file and the first missing and mis-shaped key, and says what the file holds.
    """
    shapes = {name: shape for name, shape in checkpoint.shapes.items() if name.startswith(prefix)}
    missing = [name for name in expected if name not in shapes]
    unexpected = [name for name in shapes if name not in expected]
    reshaped = [name for name in expected if name in shapes and shapes[name] != expected[name]]
    complaints = [f"{len(missing)} missing, first {missing[0]!r}"] if missing else []
    if reshaped:
        name = reshaped[0]
        complaints.append(f"{len(reshaped)} mis-shaped, first {name!r}: file {shapes[name]}, model {expected[name]}")
    if complaints:
        complaints += [f"{len(unexpected)} unexpected, first {unexpected[0]!r}"] if unexpected else []
        held = f"; {described(checkpoint.shapes)}" if missing else ""
        raise CheckpointError(f"{checkpoint.path} does not fit the model: keys {'; '.join(complaints)}{held}")
    extra = [f"not part of the model and left out: {first_of(unexpected)}"] if unexpected else []
    if notes := [*checkpoint.notes, *extra]:
        warnings.warn(f"{checkpoint.path}: {'; '.join(notes)}", UserWarning, stacklevel=3)


def load_weights(
    module: nn.Module,
    checkpoint: Checkpoint,
    *,
    device: torch.device,
    dtype: torch.dtype,
    aliases: Mapping[str, str] | None = None,
    on_host: Collection[str] = (),
    shard: Shard | None = None,
    progress: bool = False,
) -> None:
    """Fill a module that was built on the meta device.

    Args:
        aliases: names in the module that share the tensor of another name (tied weights), and need not be in the file.
        on_host: names of tensors that stay on the host, in the memory-mapped file where the dtype allows.
        shard: read only parts of some tensors; the module's parameters then have the parts' shapes.

    Raises:
        CheckpointError: the checkpoint does not fit, or is damaged.
    """
    tied = {name: source for name, source in (aliases or {}).items() if source in checkpoint.shapes}
    shapes = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    absent = {name for name in tied if name not in checkpoint.shapes}
    check_fit(checkpoint, {name: shape for name, shape in shapes.items() if name not in absent})
    names = [name for name in shapes if name not in tied]
    settings = {"device": device, "dtype": dtype, "on_host": on_host, "progress": progress}
    state = read_tensors(checkpoint, names, shard=shard, **settings)
    for name, value in state.items():
        if value.shape != shapes[name]:
            _resize_(module, name, value)
    state |= {name: state[source] for name, source in tied.items()}
    module.load_state_dict(state, strict=True, assign=True)
    left = [name for name, value in (*module.named_parameters(), *module.named_buffers()) if value.is_meta]
    assert not left, f"still without weights: {left}"
    module.requires_grad_(False).eval()


@torch.inference_mode(False)
def read_tensors(
    checkpoint: Checkpoint,
    names: Iterable[str],
    *,
    device: torch.device,
    dtype: torch.dtype,
    on_host: Collection[str] = (),
    shard: Shard | None = None,
    progress: bool = False,
) -> dict[str, Tensor]:
    """Tensors of a checkpoint by name; see `load_weights`. What a GPU is to have is read by several threads.

    These are not in inference mode, and could not write to tensors that were made in it: T5 and the VAE's encoder may
    be loaded when they are first used, within a call.

    Raises:
        CheckpointError: the file is damaged.
    """
    state: dict[str, Tensor] = {}
    waiting: list[str] = []
    names = list(names)
    sizes = {name: torch.Size(checkpoint.shapes[name]).numel() * checkpoint.dtype(name).itemsize for name in names}
    title, total = f"loading {checkpoint.path.name}", sum(sizes.values())
    with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=not progress, leave=False) as bar:

        def fill() -> None:
            _fill(checkpoint, {name: state[name] for name in waiting}, bar.update)
            state.update({name: state[name].to(_wanted_dtype(name, checkpoint, dtype)) for name in waiting})
            waiting.clear()

        to_change = 0
        for name in names:
            place, wanted = torch.device("cpu") if name in on_host else device, _wanted_dtype(name, checkpoint, dtype)
            regions = shard(name, checkpoint.shapes[name]) if shard is not None else None
            if place.type != "cuda" or regions is not None:
                state[name] = checkpoint.tensor(name, place, regions).to(wanted)
                bar.update(sizes[name])
                continue
            state[name] = torch.empty(checkpoint.shapes[name], dtype=checkpoint.dtype(name), device=place)
            waiting.append(name)
            to_change += sizes[name] if wanted != state[name].dtype else 0
            if to_change > CHANGED_BYTES:
                fill()
                to_change = 0
        fill()
    return state


def changing_bytes(checkpoint: Checkpoint, names: Iterable[str], dtype: torch.dtype) -> int:
    """What a GPU has besides while `read_tensors` brings these tensors to `dtype`: some in the file's dtype."""
    wanted = {name: _wanted_dtype(name, checkpoint, dtype) for name in names}
    sizes = [
        torch.Size(checkpoint.shapes[name]).numel() * found.itemsize
        for name, to in wanted.items()
        if (found := checkpoint.dtype(name)) != to
    ]
    return min(sum(sizes), CHANGED_BYTES + max(sizes, default=0))


def _fill(checkpoint: Checkpoint, targets: Mapping[str, Tensor], on_bytes: Callable[[int], object]) -> None:
    try:
        read_all([(checkpoint.source(name), target) for name, target in targets.items()], on_bytes=on_bytes)
    except EOFError as error:
        raise CheckpointError(f"{checkpoint.path} is truncated: {error}") from error


def _wanted_dtype(name: str, checkpoint: Checkpoint, dtype: torch.dtype) -> torch.dtype:
    """`dtype` for what is floating; float8 weights and their float32 scales stay what they are."""
    found = checkpoint.dtype(name)
    return found if not found.is_floating_point or found.itemsize == 1 or name.endswith(".scale") else dtype


def _resize_(module: nn.Module, name: str, value: Tensor) -> None:
    """Give a parameter another shape, which a strict `load_state_dict` then expects."""
    owner, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(owner), leaf, nn.Parameter(value, requires_grad=False))


def dit_config(checkpoint: Checkpoint) -> DiTConfig:
    """Sizes of the DiT, read off the shapes in its checkpoint.

    Raises:
        CheckpointError: a key of a DiT is not there.
    """
    try:
        return sizes.dit_config(checkpoint.shapes)
    except ValueError as error:
        raise CheckpointError(f"{checkpoint.path} is {error}; {described(checkpoint.shapes)}") from None
