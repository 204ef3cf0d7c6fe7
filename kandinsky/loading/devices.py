"""Where each module runs and in which dtype, checked before anything is loaded."""

from argparse import ArgumentTypeError
from collections.abc import Mapping

import torch

from kandinsky.config import MODULES
from kandinsky.model.precision import Precision
from kandinsky.parallel.ranks import local_rank

DeviceMap = str | torch.device | Mapping[str, str | torch.device]
"""A device for everything, or one for each of `config.MODULES`."""
KINDS = ("cpu", "cuda", "mps")
DTYPES = (torch.float32, torch.bfloat16)


def devices_of(device_map: DeviceMap, *, distributed: bool = True) -> dict[str, torch.device]:
    """A device for each of `dit`, `vae`, `text_embedder`; the argument is left as it is.

    Args:
        distributed: False ignores a launcher's local rank.

    Raises:
        ValueError: empty, an unknown or missing key, or a device that does not exist here.
    """
    if isinstance(device_map, str | torch.device):
        return dict.fromkeys(MODULES, device_of(device_map, "device_map", distributed=distributed))
    if not isinstance(device_map, Mapping):
        raise ValueError(
            f"device_map={device_map!r}: allowed is a device, or a mapping with the keys {', '.join(MODULES)}"
        )
    wrong = [f"unknown key {key!r}" for key in device_map if key not in MODULES]
    wrong += [f"missing key {key!r}" for key in MODULES if key not in device_map]
    if wrong:
        raise ValueError(f"device_map={dict(device_map)!r}: {', '.join(wrong)}; the keys are {', '.join(MODULES)}")
    return {key: device_of(device_map[key], f"device_map[{key!r}]", distributed=distributed) for key in MODULES}


def device_of(value: object, name: str, *, distributed: bool = True) -> torch.device:
    """`value` as a device of this machine, with its index; "cuda" is the one with the local rank's number.

    Raises:
        ValueError: names what is available.
    """
    try:
        device = torch.device(value)  # type: ignore[arg-type]  # a wrong type is one of the errors answered below
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in KINDS:
        raise ValueError(f"{name}={value!r} is not a device; allowed here: {available()}")
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type == "mps":
        index, exists = 0, torch.backends.mps.is_available()
    else:
        index = local_rank(distributed=distributed) if device.index is None else device.index
        exists = index < torch.cuda.device_count()
    if not exists:
        which = f" (number {index}, for this process's local rank)" if device.index is None and index else ""
        raise ValueError(f"{name}={value!r}{which} does not exist on this machine; allowed here: {available()}")
    return torch.device(device.type, index)


def device_argument(given: str) -> torch.device:
    """`device_of` as the `type` of an argument of `argparse`, which names the argument in its message.

    Raises:
        ArgumentTypeError: names what is available.
    """
    try:
        return device_of(given, "device")
    except ValueError as error:
        raise ArgumentTypeError(str(error)) from error


def available() -> str:
    """Devices of this machine, for messages."""
    names = ["cpu", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    return ", ".join([*names, "mps"] if torch.backends.mps.is_available() else names)


def check_dtype(dtype: torch.dtype | None) -> None:
    """Refuse a dtype that the model does not run in."""
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"dtype={dtype!r}: allowed are None, {', '.join(map(str, DTYPES))}")


def check_precision(precision: Precision, device: torch.device, dtype: torch.dtype | None) -> None:
    """Refuse a precision that this device has no matrix products for.

    Raises:
        ValueError: says what is needed and what is there.
    """
    if precision.capability is None:
        return
    found = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    if found is None or found < precision.capability:
        what = f"{device} is not one" if found is None else f"{device} has {found[0]}.{found[1]}"
        needed = ".".join(map(str, precision.capability))
        raise ValueError(
            f"precision={precision.name!r} needs a CUDA device of compute capability {needed} or newer; {what}"
        )
    if dtype not in (None, torch.bfloat16):
        raise ValueError(f"precision={precision.name!r} needs dtype=torch.bfloat16 (or None), got {dtype}")


def default_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 on CUDA, float32 elsewhere."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32
