"""The Hopper kernel of `float8` attention (`hopper_float8.cu`): compiled with NVRTC at first use."""

import ctypes
import functools

import torch
from torch import Tensor

from kandinsky.model import nvrtc

HEAD_DIM = 64
GROUPS, KEYS, STAGES = 3, 128, 3
"""Warpgroups of 64 query rows, keys of a tile, tiles in flight: the fastest of those measured."""
ONES = 8 * KEYS
"""Bytes of the rows of ones behind the values of a stage."""
SHARED = STAGES * (2 * KEYS * HEAD_DIM + ONES + 16) + 1024
"""Bytes of shared memory: keys and values, ones, barriers, alignment."""
_UINT8, _SWIZZLE_64, _SWIZZLE_128 = 0, 2, 3  # values of the driver's enumerations


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("queries_keys", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("row_stride", ctypes.c_longlong),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
    )


@functools.cache
def kernel(device: int) -> ctypes.c_void_p:
    """The kernel on GPU `device`.

    Raises:
        OSError: NVRTC is not there.
        RuntimeError: it is not a Hopper GPU, or the driver refuses.
    """
    if not nvrtc.is_hopper(device):
        raise RuntimeError("attention='float8' needs a Hopper GPU")
    macros = {"GROUPS": GROUPS, "KEYS": KEYS, "STAGES": STAGES, "ROW_BYTES": HEAD_DIM, "EXTRA": ONES}
    cubin = nvrtc.compile_source(nvrtc.source_of("hopper_float8.cu"), "hopper_float8.cu", macros)
    return nvrtc.load(cubin, "attend", device=device, shared=SHARED)


def launch(queries_keys: Tensor, values: Tensor) -> Tensor:
    """Queue the kernel on the current stream, which must be of the tensors' device.

    Args:
        queries_keys: float8 e4m3 `[tokens, 2, heads, 64]`, contiguous; their products are logits in units of log2.
        values: float8 e4m3 `[heads, 64, tokens padded to a multiple of 16]`, contiguous, as `float8_operands` orders
            them, with zeros behind the last.

    Returns:
        `[tokens, heads, 64]` bfloat16.
    """
    tokens, _, heads, _ = queries_keys.shape
    device, padded = queries_keys.device.index, values.shape[2]
    out = torch.empty(tokens, heads, HEAD_DIM, dtype=torch.bfloat16, device=queries_keys.device)
    row = 2 * heads * HEAD_DIM
    maps = [
        nvrtc.tensor_map(
            queries_keys.data_ptr(),
            _UINT8,
            (HEAD_DIM, 2 * heads, tokens),
            (HEAD_DIM, row),
            (HEAD_DIM, 1, KEYS),
            _SWIZZLE_64,
        ),
        nvrtc.tensor_map(
            values.data_ptr(),
            _UINT8,
            (padded, HEAD_DIM, heads),
            (padded, HEAD_DIM * padded),
            (KEYS, HEAD_DIM, 1),
            _SWIZZLE_128,
        ),
    ]
    arguments = _Arguments(queries_keys.data_ptr(), out.data_ptr(), row, tokens, heads)
    blocks = min(-(-tokens // (64 * GROUPS)) * heads, nvrtc.processors(device))  # persistent: one a multiprocessor
    nvrtc.launch(kernel(device), maps, arguments, blocks=blocks, threads=128 * (GROUPS + 1), shared=SHARED)
    return out
