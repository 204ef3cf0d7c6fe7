"""Which files of a folder are a model's weights.

Those that transformers or diffusers would take by default, in their order: `model.safetensors` before its index, the
index before `diffusion_pytorch_model.safetensors`. Variants (`.fp16`) and other names count only if nothing else is
there. What is ambiguous is refused. Hidden files never count: macOS and programs that were killed leave such.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kandinsky.checkpoint.json_file import json_of
from kandinsky.errors import CheckpointError

ENDING, INDEX = ".safetensors", ".safetensors.index.json"
TRANSFORMERS = ("model" + ENDING, "model" + INDEX)
DIFFUSERS = ("diffusion_pytorch_model" + INDEX, "diffusion_pytorch_model" + ENDING)
OTHER_FORMATS = (".bin", ".pt", ".pth", ".ckpt", ".msgpack", ".h5", ".gguf")
_SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}\.safetensors")


@dataclass(frozen=True)
class WeightFiles:
    """Files that together are a model's weights.

    Args:
        files: in the order of their names.
        file_of: which of them has a tensor, as their index says; empty where there is none.
    """

    files: tuple[Path, ...]
    file_of: Mapping[str, Path] = field(default_factory=dict)


def weight_files(folder: Path) -> WeightFiles:
    """The `.safetensors` files of a model's folder.

    Raises:
        FileNotFoundError: there are none, or not all that the index names.
        CheckpointError: several could be meant, or the index is damaged.
    """
    names = visible_files(folder)
    by_library = [[name for name in order if name in names] for order in (TRANSFORMERS, DIFFUSERS)]
    found = [order for order in by_library if order]
    if len(found) > 1:
        library = _library(folder)
        if library is None:
            raise _ambiguous(folder, [name for order in found for name in order])
        found = [by_library[library]]
    return _opened(folder, found[0][0] if found else _only_one(folder, names))


def visible_files(folder: Path) -> list[str]:
    """Names of a folder's files that are not hidden, in order."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith(".") and path.is_file())


def _library(folder: Path) -> int | None:
    """Which library's files a folder holds, as its configuration says: 0 transformers', 1 diffusers', None neither."""
    try:
        config = json_of(folder / "config.json", what="a model configuration")
    except (FileNotFoundError, CheckpointError):
        return None
    keys = ("model_type", "_class_name")
    told = [key in config for key in keys] if isinstance(config, dict) else []
    return told.index(True) if told.count(True) == 1 else None


def _only_one(folder: Path, names: list[str]) -> str:
    """The only file or index where none has a name that a library looks for."""
    weights = [name for name in names if name.endswith(ENDING)]
    indices = [name for name in names if name.endswith(INDEX)]
    shards = [match for name in weights if (match := _SHARD.fullmatch(name))]
    rest = [name for name in weights if not _SHARD.fullmatch(name)]
    candidates = [*indices, *rest]
    if len(candidates) > 1:
        raise _ambiguous(folder, candidates)
    if candidates:
        return candidates[0]
    if shards:
        missing = f"{shards[0][1]}{INDEX}"
        raise FileNotFoundError(f"weights not found: {folder / missing}, without which {shards[0][0]} is not read")
    others = [name for name in names if name.endswith(OTHER_FORMATS)]
    hint = f", only {', '.join(others[:3])}: save the model as .safetensors" if others else ""
    raise FileNotFoundError(f"weights not found: no .safetensors file in {folder}{hint}")


def _opened(folder: Path, name: str) -> WeightFiles:
    """The file called `name`, or those that it names if it is an index."""
    path = folder / name
    if not name.endswith(INDEX):
        return WeightFiles((path,))
    content = json_of(path, what="an index of weights")
    named = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(named, dict) or not named or not all(isinstance(value, str) for value in named.values()):
        raise CheckpointError(f"{path} is not an index of weights: no names of files under 'weight_map'")
    shards = sorted(set(named.values()))
    outside = [shard for shard in shards if Path(shard).name != shard]
    if outside:
        raise CheckpointError(f"{path} names {outside[0]!r}: allowed are files beside it")
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise FileNotFoundError(f"weights not found: {folder}: {', '.join(missing)} (named by {name})")
    return WeightFiles(tuple(folder / shard for shard in shards), {key: folder / value for key, value in named.items()})


def _ambiguous(folder: Path, names: list[str]) -> CheckpointError:
    return CheckpointError(f"{folder}: any of {', '.join(names)} could be meant; leave one, or give it a usual name")
