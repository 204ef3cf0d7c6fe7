"""Where each part of the model lives while another one runs.

* resident: on its device from load to end.
* staged: in pinned host memory; on the device only while it is used (T5 encodes, the DiT samples, the VAE decodes).
* blocks: there too, and of its blocks only a few are on the device at once (see `block_stream`). The VAE is small and
  has no blocks to stream: for it this is "staged".
* disk: as blocks, but read from the file each time they are used, the system's page cache doing the rest (see
  `file_stream`): little host memory of the process's own. For the VAE this is "staged" too.

The mode changes nothing in the result: what is computed on the device is the same in each, the modulation table and the
quantisation of `precision="fast"` included.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from kandinsky.checkpoint.files import Checkpoint
from kandinsky.config import MEMORY_MODES, MODULES
from kandinsky.memory.block_stream import SLOTS, BlockStream, Home, Packed, pack
from kandinsky.memory.file_stream import FilePart, FileStream
from kandinsky.model.dit import DiT, TransformerBlock
from kandinsky.model.layers import ModulationLayer
from kandinsky.model.precision import Precision
from kandinsky.text.t5 import T5Encoder

Memory = str | Mapping[str, str]
"""As the user says it: a mode's name or "auto" for all components, or a name for each."""


@dataclass(frozen=True)
class Mode:
    """Where the weights of one component live.

    Args:
        name: as the user says it.
        stays: they stay on their device.
        slots: blocks on the device at once while it is used; None is all.
        from_file: they are read from their file whenever they are used, and have no place on the host.
    """

    name: str
    stays: bool
    slots: int | None
    from_file: bool = False


RESIDENT = Mode("resident", stays=True, slots=None)
STAGED = Mode("staged", stays=False, slots=None)
BLOCKS = Mode("blocks", stays=False, slots=SLOTS)
DISK = Mode("disk", stays=False, slots=SLOTS, from_file=True)
MODES: Mapping[str, Mode] = MappingProxyType(dict(zip(MEMORY_MODES, (RESIDENT, STAGED, BLOCKS, DISK), strict=True)))


def modes_of(memory: Memory, devices: Mapping[str, torch.device]) -> dict[str, Mode] | None:
    """The mode of each component; None if it is to be chosen ("auto").

    Raises:
        ValueError: an unknown mode or component, or one that its device has no use for.
    """
    if isinstance(memory, str):
        memory = dict.fromkeys(MODULES, memory)
        if memory["dit"] == "auto":
            return None
    allowed = ", ".join(map(repr, MODES))
    if not isinstance(memory, Mapping) or not set(memory) <= set(MODULES):
        raise ValueError(
            f"memory={memory!r}: allowed are 'auto', {allowed}, or a mapping with keys {', '.join(MODULES)}"
        )
    names = {name: memory.get(name, "resident") for name in MODULES}
    for name, mode in names.items():
        if mode not in MODES:
            raise ValueError(f"memory: {name} is {mode!r}; allowed are {allowed}, and 'auto' for all together")
        if not MODES[mode].stays and devices[name].type != "cuda":
            raise ValueError(f"memory: {name} is {mode!r}, but runs on {devices[name]}; allowed there: 'resident'")
    return {name: MODES[mode] for name, mode in names.items()}


def offload_modulation_(dit: DiT, checkpoint: Checkpoint | None = None) -> None:
    """Take the blocks' modulation layers off the device.

    A pipeline computes the modulation of its few timesteps once, a table of 12 MB at full size in bfloat16; the 1.6 GB
    of weights that made it are not needed on the device again.

    Args:
        checkpoint: they are left in this memory-mapped file where its dtype allows; without one they are copied.
    """
    cpu = torch.device("cpu")
    for name, parameter in dit.named_parameters():
        if "_modulation." in name and parameter.device != cpu:
            stored = parameter.data if checkpoint is None else checkpoint.tensor(name, cpu)
            parameter.data = stored.to(cpu, parameter.dtype)


def home_of_dit(
    dit: DiT, device: torch.device, *, mode: Mode, precision: Precision, checkpoint: Checkpoint | None = None
) -> Home | None:
    """Prepare a DiT that was loaded to the host: its small layers go to `device`, its blocks into a stream.

    Nothing is to be done for one that stays: its home is None.

    Args:
        precision: that the blocks' Linears are to have, made one block at a time on `device`.
        checkpoint: the file that its weights are mapped from; needed if the mode reads from it.
    """
    if mode.stays:
        return None
    for name, child in dit.named_children():
        if name != "transformer_blocks":
            child.to(device)
    if mode.from_file:
        assert checkpoint is not None
        assert precision.is_exact
        names = {id(value): name for name, value in (*dit.named_parameters(), *dit.named_buffers())}
        blocks = [{names[id(value)]: value for value in streamed_tensors(block)} for block in dit.blocks]
        return FileStream(dit.blocks, [FilePart(block, checkpoint) for block in blocks], device, slots=mode.slots)
    if precision.is_exact:
        packed = pack(streamed_tensors(block) for block in dit.blocks)
    else:
        packed = _converted(dit, device, precision)
    return BlockStream(dit.blocks, packed, device, slots=mode.slots)


def streamed_tensors(block: TransformerBlock) -> list[Tensor]:
    """All tensors of a block but those of its modulation, which do not run with it."""
    return [tensor for name, tensor in _named(block) if "modulation" not in name.partition(".")[0]]


def _converted(dit: DiT, device: torch.device, precision: Precision) -> list[Packed]:
    packed = []
    for block in dit.blocks:
        block.self_attention.to(device)
        block.feed_forward.to(device)
        precision.convert_block_(block)
        packed.append(Packed(streamed_tensors(block)))
    return packed


@contextmanager
def modulation_on(dit: DiT, device: torch.device) -> Iterator[None]:
    """Meanwhile, each modulation layer comes to `device` while it runs: 19 MB at a time, from where it was loaded."""
    handles = []
    for layer in dit.modules():
        if isinstance(layer, ModulationLayer):
            linear = layer.out_layer
            host = (linear.weight.data, linear.bias.data)
            handles.append(layer.register_forward_pre_hook(_Swap(linear, host, device)))
            handles.append(layer.register_forward_hook(_Swap(linear, host, host[0].device)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Swap:
    """Hook: let a Linear's parameters be copies of `tensors` on `device`."""

    def __init__(self, linear: nn.Linear, tensors: tuple[Tensor, Tensor], device: torch.device):
        self.linear, self.tensors, self.device = linear, tensors, device

    def __call__(self, *_hook: object) -> None:
        with torch.inference_mode(False):
            self.linear.weight.data, self.linear.bias.data = (tensor.to(self.device) for tensor in self.tensors)


def home_of_t5(
    model: T5Encoder, device: torch.device, *, mode: Mode, checkpoint: Checkpoint | None = None
) -> Home | None:
    """Prepare a T5 encoder that was loaded to the host: its blocks go into a stream. None for one that stays.

    Only the last norm (8 KB) is kept on `device`.

    Args:
        checkpoint: the file that its weights are mapped from; needed if the mode reads from it.
    """
    if mode.stays:
        return None
    stack = model.encoder
    stack.final_layer_norm.to(device)
    if mode.from_file:
        assert checkpoint is not None
        parts = [
            FilePart({f"encoder.block.{index}.{name}": value for name, value in _named(block)}, checkpoint)
            for index, block in enumerate(stack.block)
        ]
        return FileStream([*stack.block], parts, device, slots=mode.slots, one_pass=True)
    packed = pack([value for _, value in _named(block)] for block in stack.block)
    return BlockStream([*stack.block], packed, device, slots=mode.slots, one_pass=True)


def _named(module: nn.Module) -> list[tuple[str, Tensor]]:
    return [*module.named_parameters(), *module.named_buffers()]
