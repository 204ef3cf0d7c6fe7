"""Low-rank weights (LoRA) merged into the DiT of `Parts`, and taken out again to the bit: a function to other `Parts`.

Every Linear that has or gets such weights is read again from its file, has the product added in float32, is rounded
once, quantised anew where it is float8, and put where its weight lives: on the device, in the host buffers of a stream
of blocks, or on the host (modulation). A request costs nothing more. Only blocks that come from their file each time
have the product added each time, on the device, where their low-rank weights then are. The modules
themselves change, so the parts that went in are not to be used any more.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from kandinsky.checkpoint.load import read_tensors
from kandinsky.checkpoint.lora import LowRank, add_low_rank
from kandinsky.errors import CheckpointError
from kandinsky.loading.parts import Adapter, BaseWeights, Parts, modulation_table
from kandinsky.memory.file_stream import FileStream
from kandinsky.memory.modes import modulation_on
from kandinsky.parallel.sequence import UlyssesAttention
from kandinsky.parallel.tensor import SummedLinear

AT_ONCE = 2 * 10**9
"""Bytes of weights that are read at once, by several threads, beside those that are there."""
CPU = torch.device("cpu")


def base_of(parts: Parts) -> BaseWeights:
    """Where the weights without any LoRA are read from.

    Raises:
        ValueError: the parts were put together by hand, or only float8 weights are there.
    """
    if parts.base is None:
        raise ValueError(
            "LoRA: this pipeline's transformer was not loaded from a file with exact weights, which merging needs; "
            "load it with get_T2V_pipeline, and with the published file beside a float8 one"
        )
    return parts.base


def with_adapters(parts: Parts, wanted: Mapping[str, Adapter]) -> Parts:
    """The parts with these adapters merged, by name, and no others.

    Args:
        wanted: those of weight 0 are known and not merged.

    Raises:
        ValueError: as `base_of`.
        CheckpointError: the file of the weights cannot be read any more; what is merged is then not known.
    """
    base = base_of(parts)
    before, now = _by_linear(parts.adapters), _by_linear(wanted)
    modulation = parts.modulation
    if _marks(parts.adapters) != _marks(wanted):
        names = sorted(before.keys() | now.keys())
        with torch.inference_mode(False), torch.no_grad():
            if isinstance(parts.dit_home, FileStream):
                parts.dit_home.change_(_changes(parts, now))
                names = [name for name in names if not _is_streamed(parts, name)]
            for host in (False, True):
                for group in _groups((name for name in names if _on_host(parts, name) == host), base):
                    _merge_(parts, group, now, device=CPU if host else parts.dit.device)
        modulation = base.modulation
        if any(not name.startswith("transformer_blocks.") or "modulation" in name for name in now):
            with modulation_on(parts.dit, parts.dit.device):
                modulation = modulation_table(parts.dit, parts.schedule)
    origin = parts.origin and replace(parts.origin, **_told(wanted))
    return replace(parts, adapters=dict(wanted), modulation=modulation, origin=origin)


def _marks(adapters: Mapping[str, Adapter]) -> list[tuple[str, float]]:
    """What is merged, in its order."""
    return [(each.lora.fingerprint, each.weight) for each in adapters.values() if each.weight]


def _told(adapters: Mapping[str, Adapter]) -> dict[str, dict[str, str]]:
    """What records say."""
    active = {name: each for name, each in adapters.items() if each.weight}
    return {
        "loras": {name: each.lora.fingerprint for name, each in active.items()},
        "lora_weights": {name: repr(each.weight) for name, each in active.items()},
    }


def _by_linear(adapters: Mapping[str, Adapter]) -> dict[str, list[tuple[LowRank, float]]]:
    """For each Linear what is added to its weight."""
    found: dict[str, list[tuple[LowRank, float]]] = {}
    for adapter in adapters.values():
        for name, layer in adapter.lora.layers.items() if adapter.weight else ():
            found.setdefault(name, []).append((layer, adapter.weight))
    return found


def _groups(names: Iterable[str], base: BaseWeights) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name in names:
        group.append(name)
        size += 2 * torch.Size(base.checkpoint.shapes[f"{name}.weight"]).numel()
        if size > AT_ONCE:
            yield group
            group, size = [], 0
    if group:
        yield group


def _merge_(
    parts: Parts, names: list[str], added: Mapping[str, list[tuple[LowRank, float]]], *, device: torch.device
) -> None:
    """Read the weights of some Linears, add what is to be added, and put them into their places."""
    base = base_of(parts)
    keys = [f"{name}.weight" for name in names]
    try:
        state = read_tensors(base.checkpoint, keys, device=device, dtype=parts.dit.dtype, shard=base.shard)
    except (OSError, CheckpointError) as error:
        raise CheckpointError(
            f"{base.checkpoint.path} could not be read again ({error}): load the pipeline anew"
        ) from error
    for name, key in zip(names, keys, strict=True):
        weight = state.pop(key)
        if name in added:
            region = None if base.shard is None else base.shard(key, base.checkpoint.shapes[key])
            weight = add_low_rank(weight, added[name], region)
        for linear, part in _places(parts, name, weight):
            _put_(linear, part, base, in_place=_is_streamed(parts, name))


def _changes(parts: Parts, added: Mapping[str, list[tuple[LowRank, float]]]) -> dict[int, Callable[[], None]]:
    """For each block with low-rank weights, by its number, what adds them to what came from its file."""
    numbers = {id(block): number for number, block in enumerate(parts.dit.blocks)}
    device = parts.dit.device
    by_block: dict[int, list[str]] = {}
    here: dict[str, list[tuple[LowRank, float]]] = {}
    for name in added:
        if _is_streamed(parts, name):
            block = parts.dit.get_submodule(".".join(name.split(".")[:3]))
            by_block.setdefault(numbers[id(block)], []).append(name)
            here[name] = [(_moved(layer, device), strength) for layer, strength in added[name]]

    def change(names: list[str]) -> None:
        for name in names:
            linear = parts.dit.get_submodule(name)
            if isinstance(linear, nn.Linear):
                linear.weight.copy_(add_low_rank(linear.weight, here[name], None))
            else:  # what came is float8, and the exact weight in another file
                _merge_(parts, [name], here, device=device)

    return {number: partial(change, names) for number, names in by_block.items()}


def _moved(layer: LowRank, device: torch.device) -> LowRank:
    return replace(layer, down=layer.down.to(device), up=layer.up.to(device))


def _places(parts: Parts, name: str, weight: Tensor) -> Iterator[tuple[nn.Module, Tensor]]:
    """The modules that have a Linear's weight, each with its part of it."""
    owner, _, leaf = name.rpartition(".")
    parent = parts.dit.get_submodule(owner)
    module = parent.get_submodule(leaf)
    if isinstance(parent, UlyssesAttention) and isinstance(module, nn.ModuleList):
        by_rank = weight.unflatten(0, (3, len(module), -1))
        yield from ((linear, by_rank[:, rank].flatten(0, 1)) for rank, linear in enumerate(module))
    else:
        yield (module.linear if isinstance(module, SummedLinear) else module), weight


def _put_(linear: Any, weight: Tensor, base: BaseWeights, *, in_place: bool) -> None:
    """Let a Linear, or one of float8, have this weight.

    Args:
        in_place: its memory is a buffer that others copy from. On a host it may else be the file itself, mapped, and
            is not written to.
    """
    if not isinstance(linear, nn.Linear):
        assert base.quantise is not None
        values, scale = base.quantise(weight)
        linear.get_buffer("weight").copy_(values)
        linear.get_buffer("scale").copy_(scale)
    elif in_place or linear.weight.is_cuda:
        linear.weight.copy_(weight)
    else:
        linear.weight.data = weight.to(linear.weight.device)


def _is_streamed(parts: Parts, name: str) -> bool:
    return parts.dit_home is not None and name.startswith("transformer_blocks.") and "modulation" not in name


def _on_host(parts: Parts, name: str) -> bool:
    """Whether a Linear's weight is on the host although the DiT runs on a device: modulation, after its table."""
    if "_modulation." not in name:
        return False
    return parts.dit.get_submodule(name).get_parameter("weight").device == CPU
