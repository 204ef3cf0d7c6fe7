"""How the pipeline of a record was loaded, for whoever makes its file again."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kandinsky.output.record import Record


def devices_as(record: "Record") -> str | dict[str, str]:
    """`device_map`: kinds of device."""
    devices = dict(record.origin.devices) if record.origin else {"dit": "cuda"}
    kinds = set(devices.values())
    return kinds.pop() if len(kinds) == 1 else devices


def loading_as(record: "Record") -> dict[str, Any]:
    """Arguments of `get_T2V_pipeline` that decide about bits."""
    import torch

    origin = record.origin
    if origin is None:
        return {}
    names = ("precision", "attention", "kernels", "vae_memory_saving", "text_encoder_int8")
    dtype = None if origin.dtype is None else getattr(torch, origin.dtype)
    return {"dtype": dtype, **{name: getattr(origin, name) for name in names}}
