"""The Hopper kernel of `float8` attention (`hopper_float8.cu`) in its two forms: compiled with NVRTC at first use."""

import ctypes
import functools

import torch
from torch import Tensor

from kandinsky.model import nvrtc
from kandinsky.model.quantised import FLOAT8

HEAD_DIM = 64
KEYS = 128
"""Of a tile."""
BEHIND = (HEAD_DIM + 8) * KEYS
"""Bytes behind the keys of a tile: its values and eight rows of ones."""
GROUPS, STAGES = 3, 3
"""Warpgroups of 64 query rows, tiles in flight."""
_UINT8, _SWIZZLE_64, _SWIZZLE_128 = 0, 2, 3  # values of the driver's enumerations


DTYPES = (torch.float16, FLOAT8)
"""Of queries and keys: the kernel has a form for each."""


def row_bytes(dtype: torch.dtype) -> int:
    """Of a query or key of one head."""
    return HEAD_DIM * dtype.itemsize


def shared(dtype: torch.dtype) -> int:
    """Bytes of shared memory: tiles, barriers, alignment."""
    return STAGES * (KEYS * row_bytes(dtype) + BEHIND + 16) + 1024


def macros(dtype: torch.dtype) -> dict[str, int]:
    """Of the compiler's command line."""
    sizes = {"ROW_BYTES": row_bytes(dtype), "BEHIND": BEHIND}
    return {"GROUPS": GROUPS, "KEYS": KEYS, "STAGES": STAGES, **sizes}


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("queries_keys", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("row_bytes", ctypes.c_longlong),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
    )


@functools.cache
def kernel(device: int, dtype: torch.dtype) -> ctypes.c_void_p:
    """The kernel on GPU `device`, for queries and keys of a dtype.

    Raises:
        OSError: NVRTC is not there.
        RuntimeError: it is not a Hopper GPU, or the driver refuses.
    """
    if not nvrtc.is_hopper(device):
        raise RuntimeError("attention='float8' needs a Hopper GPU")
    cubin = nvrtc.compile_source(nvrtc.source_of("hopper_float8.cu"), "hopper_float8.cu", macros(dtype))
    return nvrtc.load(cubin, "attend", device=device, shared=shared(dtype))


def launch(queries_keys: Tensor, values: Tensor) -> Tensor:
    """Queue the kernel on the current stream, which must be of the tensors' device.

    Args:
        queries_keys: `[tokens, 2, heads, 64]` float16 or float8 e4m3, contiguous; their products are logits in units
            of log2.
        values: float8 e4m3 `[heads, 64, tokens padded to a multiple of 128]`, contiguous, as `float8_operands` orders
            them, with zeros behind the last.

    Returns:
        `[tokens, heads, 64]` bfloat16.
    """
    assert values.dtype == FLOAT8
    dtype, wide = queries_keys.dtype, row_bytes(queries_keys.dtype)
    tokens, _, heads, _ = queries_keys.shape
    device, padded = queries_keys.device.index, values.shape[2]
    out = torch.empty(tokens, heads, HEAD_DIM, dtype=torch.bfloat16, device=queries_keys.device)
    row = 2 * heads * wide
    swizzle = _SWIZZLE_128 if wide == 128 else _SWIZZLE_64
    sizes, strides, box = (wide, 2 * heads, tokens), (wide, row), (wide, 1, KEYS)
    transposed = (padded, HEAD_DIM, heads), (padded, HEAD_DIM * padded), (KEYS, HEAD_DIM, 1)
    maps = [
        nvrtc.tensor_map(queries_keys.data_ptr(), _UINT8, sizes, strides, box, swizzle),
        nvrtc.tensor_map(values.data_ptr(), _UINT8, *transposed, _SWIZZLE_128),
    ]
    arguments = _Arguments(queries_keys.data_ptr(), out.data_ptr(), row, tokens, heads)
    tiles = -(-tokens // (64 * GROUPS)) * heads
    blocks = min(tiles, nvrtc.processors(device))  # persistent: one a multiprocessor
    threads = 128 * (GROUPS + 1)
    nvrtc.launch(kernel(device, dtype), maps, arguments, blocks=blocks, threads=threads, shared=shared(dtype))
    return out
