"""Low-rank weights (LoRA, arXiv 2106.09685) in files: read, compared with the model, and added to its weights.

Read are PEFT's folder (`adapter_config.json`, `adapter_model.safetensors`) and single `.safetensors` files, under the
names of `lora_names`. Not read: anything but safetensors, and what is more than a product of two matrices (DoRA, LoHa,
LoKr, biases, whole layers).

Legend:  weight: [out, in]     down: [rank, in]     up: [out, rank]
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from kandinsky.checkpoint.files import Region
from kandinsky.checkpoint.hub import HUGGING_FACE, Hub
from kandinsky.checkpoint.json_file import json_of
from kandinsky.checkpoint.lora_names import grouped
from kandinsky.checkpoint.names import described, first_of
from kandinsky.checkpoint.pointer import check_no_pointer
from kandinsky.config import FLOAT32_MAX
from kandinsky.errors import CheckpointError

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
METADATA = "lora_adapter_metadata"
"""Key under which diffusers keeps PEFT's configuration in a file of its own."""
MORE = (
    *("use_dora", "fan_in_fan_out", "lora_bias", "modules_to_save", "use_qalora", "alora_invocation_tokens"),
    *("layer_replication", "trainable_token_indices", "target_parameters", "use_bdlora"),
)
"""Keys of PEFT's configuration that make another function of the weights, where they are set."""


@dataclass(frozen=True)
class LowRank:
    """What is added to one Linear's weight: `scale` x `up` x `down`, both matrices in the dtype of the file."""

    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True)
class Lora:
    """The low-rank weights of one file.

    Args:
        path: the file, or PEFT's folder.
        fingerprint: of the file; see `lora_fingerprint`.
        layers: by the name of the DiT's Linear.
    """

    path: Path
    fingerprint: str
    layers: Mapping[str, LowRank]


def fetch_lora(repository: str, *, weight_name: str | None, revision: str | None, hub: Hub = HUGGING_FACE) -> Path:
    """The folder, or with `weight_name` the file, of a hub repository with low-rank weights, downloaded if need be.

    Raises:
        FileNotFoundError: it cannot be downloaded, or there is no such file in it.
    """
    wanted = [CONFIG, "*.safetensors"] if weight_name is None else [weight_name]
    try:
        hub.check_reachable()
        folder = hub.fetch_cached(repository, wanted, revision, local_files_only=False)
    except Exception as error:  # the hub raises its own, the HTTP library's and the system's errors
        why = f"{type(error).__name__}: {(str(error).strip() or 'no message').splitlines()[0]}"
        raise FileNotFoundError(f"{repository!r} is not a file or folder here, nor found on the hub ({why})") from error
    path = folder if weight_name is None else folder / weight_name
    if not path.exists():
        raise FileNotFoundError(f"{repository!r} has no file {weight_name!r}")
    return path


def read_lora(path: Path, linears: Mapping[str, tuple[int, ...]]) -> Lora:
    """The low-rank weights in a file or folder.

    Args:
        path: a `.safetensors` file, PEFT's folder, or a folder with one `.safetensors` file.
        linears: name and shape `(out, in)` of each Linear of the DiT; see `linears_of`.

    Raises:
        FileNotFoundError: there is nothing at `path`.
        CheckpointError: it is damaged, is no LoRA, or belongs to another model; the message names the keys.
    """
    file, config = _file_and_config(path)
    check_no_pointer(file)
    try:
        with safe_open(file, "pt") as handle:
            metadata = handle.metadata() or {}
            tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118  # not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{file} is truncated or not a safetensors file: {str(error).splitlines()[0]}") from error
    config = config or _config_in(metadata, file)
    parts = grouped(tensors, linears)
    if not parts.layers and not parts.elsewhere:
        raise CheckpointError(f"{file} is no LoRA; {described(tensors)}")
    complaints = [
        f"{what}: {first_of(names)}"
        for what, names in (
            ("for no Linear of this model", parts.elsewhere),
            ("not of a kind that is read", parts.unknown),
            ("without its other half", parts.incomplete),
        )
        if names
    ]
    if complaints:
        raise CheckpointError(f"{file} does not fit: {'; '.join(complaints)}")
    layers = {
        linear: _layer(file, linear, {kind: tensors[name] for kind, name in named.items()}, config)
        for linear, named in sorted(parts.layers.items())
    }
    wrong = [
        f"{linear} {_outer(layer)}, the model's is {linears[linear]}"
        for linear, layer in layers.items()
        if _outer(layer) != linears[linear]
    ]
    if wrong:
        raise CheckpointError(f"{file} is for a model of other sizes: {len(wrong)} Linears, first {wrong[0]}")
    return Lora(path, lora_fingerprint(path), layers)


def linears_of(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Name and shape `(out, in)` of each Linear, of the names and shapes of a checkpoint's tensors."""
    end = ".weight"
    return {name.removesuffix(end): shape for name, shape in shapes.items() if name.endswith(end) and len(shape) == 2}


def add_low_rank(weight: Tensor, parts: Sequence[tuple[LowRank, float]], region: Sequence[Region] | None) -> Tensor:
    """`weight` with low-rank weights added, in float32 and rounded once to its dtype.

    Args:
        weight: `[out, in]`, or those regions of it, on any device; it is left as it is.
        parts: what is added, and how much of it.
        region: which parts of the matrix `weight` is, joined along axis 0; None is all of it.
    """
    total = weight.float()
    for layer, strength in parts:
        # Brought to float32 where they are added: on the host each small matrix would start a team of threads.
        up, down = (matrix.to(weight.device).float() for matrix in (layer.up, layer.down))
        if region is not None:
            up = torch.cat([up[slices[0]] for slices in region])
            down = down[(slice(None), *region[0][1:])]  # regions that are joined along axis 0 have the same columns
        total = torch.addmm(total, up, down, alpha=layer.scale * strength)
    return total.to(weight.dtype)


def _file_and_config(path: Path) -> tuple[Path, Mapping[str, Any]]:
    """The file of tensors, and PEFT's configuration beside it; empty if there is none."""
    if not path.exists():
        raise FileNotFoundError(f"LoRA not found: {path}")
    if not path.is_dir():
        if path.suffix != ".safetensors":
            raise CheckpointError(f"{path}: allowed is a .safetensors file, or a folder with one")
        return path, {}
    found = sorted(path.glob("*.safetensors"))
    file = path / WEIGHTS if (path / WEIGHTS).is_file() else found[0] if len(found) == 1 else None
    if file is None:
        held = first_of((each.name for each in found), thing="safetensors files")
        raise CheckpointError(f"{path} has {held}: name the file, or a folder with {WEIGHTS}")
    if not (path / CONFIG).is_file():
        return file, {}
    config = json_of(path / CONFIG, what="PEFT's configuration of a LoRA")
    _check_config(config, path / CONFIG)
    return file, config


def _config_in(metadata: Mapping[str, str], file: Path) -> Mapping[str, Any]:
    """PEFT's configuration as diffusers writes it into a file: each key behind the name of the component."""
    try:
        found = json.loads(metadata.get(METADATA, "{}"))
        config = {key.removeprefix("transformer."): value for key, value in found.items()}
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{file}: its metadata {METADATA!r} cannot be read ({error})") from error
    if config:
        _check_config({"peft_type": "LORA", **config}, file)
    return config


def _check_config(config: object, file: Path) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else config
        raise CheckpointError(f"{file} describes peft_type={kind!r}; allowed is 'LORA'")
    wrong = [key for key in MORE if config.get(key)]
    if config.get("bias", "none") != "none":
        wrong.append("bias")
    if wrong:
        raise CheckpointError(f"{file} has {', '.join(wrong)}: such weights cannot be merged; allowed is plain LoRA")


def _layer(file: Path, linear: str, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRank:
    down, up = tensors["down"], tensors["up"]
    if down.ndim != 2 or up.ndim != 2 or len(down) != up.shape[1] or not len(down):
        raise CheckpointError(f"{file}: {linear} has matrices {tuple(down.shape)} and {tuple(up.shape)}")
    if not (_is_finite(down) and _is_finite(up)):
        raise CheckpointError(f"{file}: {linear} has values that are no finite numbers")
    rank = len(down)
    try:
        alpha = float(tensors["alpha"]) if "alpha" in tensors else float(_alpha(linear, config, rank))
    except (RuntimeError, TypeError, ValueError, AttributeError, re.error) as error:
        raise CheckpointError(f"{file}: the alpha of {linear} is no number ({error})") from error
    if not abs(alpha) <= FLOAT32_MAX:
        raise CheckpointError(f"{file}: the alpha of {linear} is {alpha}; allowed is a finite number of float32")
    return LowRank(down, up, alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _is_finite(matrix: Tensor) -> bool:
    """Whether it holds finite numbers alone, also in the float32 in which it will be added.

    Usual dtypes are looked at as they are: on the host each small cast would start a team of threads.
    """
    usual = matrix.dtype in (torch.float32, torch.bfloat16, torch.float16)
    return matrix.is_floating_point() and bool((matrix if usual else matrix.float()).isfinite().all())


def _alpha(linear: str, config: Mapping[str, Any], rank: int) -> Any:
    """As PEFT finds it: the first pattern that the end of the name matches, else the one for all."""
    for pattern, alpha in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", linear):
            return alpha
    return config.get("lora_alpha", rank)


def _outer(layer: LowRank) -> tuple[int, int]:
    return len(layer.up), layer.down.shape[1]


def lora_fingerprint(path: Path) -> str:
    """16 hexadecimal digits that tell files of low-rank weights apart: a SHA-256 of the file, and in a folder of PEFT's
    configuration too.

    Raises:
        FileNotFoundError, CheckpointError: as `read_lora`.
    """
    file, config = _file_and_config(path)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode() if config else b"")
    with file.open("rb") as opened:
        while chunk := opened.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()[:16]
