"""How a model set is to run: those arguments of a load that name no files, each checked and turned into a value."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from kandinsky.loading.devices import DeviceMap, check_dtype, check_precision, default_dtype, devices_of
from kandinsky.memory.choose import ALL_RESIDENT
from kandinsky.memory.modes import Memory, Mode, modes_of
from kandinsky.model.attention import Attention, attention_of, check_device
from kandinsky.model.operations import Operations
from kandinsky.model.precision import Precision, precision_of
from kandinsky.parallel.apply import Parallelism, parallelism_of
from kandinsky.parallel.ranks import Ranks, launched


@dataclass(frozen=True, kw_only=True)
class Execution:
    """How a model set is to run.

    Args:
        devices, dtypes: of each component: where it runs and in what.
        dtype: as it was asked for; None is each device's own.
        wanted_modes: where each component's weights live while they are not used; None is what fits.
        precision: of the blocks' Linears.
        attention: the backend that was asked for; None is measured.
        operations: the DiT's element-wise steps.
        kernels: as it was asked for, for the VAE's.
        parallelism: what several processes do together.
        distributed: whether a launcher's processes are joined.
        several: whether there are any.
    """

    devices: Mapping[str, torch.device]
    dtypes: Mapping[str, torch.dtype]
    dtype: torch.dtype | None
    wanted_modes: Mapping[str, Mode] | None
    precision: Precision
    attention: Attention | None
    operations: Operations
    kernels: str
    parallelism: Parallelism
    distributed: bool
    several: bool

    @property
    def alone(self) -> bool:
        """Whether this process makes its videos without others, and so has the whole of the weights."""
        return not (self.several and self.parallelism.one_video)


def execution_of(
    device_map: DeviceMap,
    *,
    precision: str,
    memory: Memory,
    attention: str,
    kernels: str,
    dtype: torch.dtype | None,
    parallelism: str,
    distributed: bool,
) -> Execution:
    """What these arguments of `get_T2V_pipeline` mean; its docstring explains them.

    Raises:
        ValueError: one is not what it may be, or two do not go together.
    """
    devices = devices_of(device_map, distributed=distributed)
    check_dtype(dtype)
    dtypes = {name: dtype or default_dtype(device) for name, device in devices.items()}
    backend, level = attention_of(attention), precision_of(precision)
    check_precision(level, devices["dit"], dtype)
    check_device(backend, device=devices["dit"], dtype=dtypes["dit"])
    execution = Execution(
        devices=devices,
        dtypes=dtypes,
        dtype=dtype,
        wanted_modes=modes_of(memory, devices),
        precision=level,
        attention=backend,
        operations=level.operations(kernels, devices["dit"]),
        kernels=kernels,
        parallelism=parallelism_of(parallelism),
        distributed=distributed,
        several=distributed and (launched() or Ranks.current().size > 1),
    )
    if not execution.alone and execution.wanted_modes not in (None, ALL_RESIDENT):
        raise ValueError(f"memory={memory!r}: processes that make a video together allow only 'resident', 'auto'")
    return execution
