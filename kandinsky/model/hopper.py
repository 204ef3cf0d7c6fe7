"""The Hopper kernel of `bounded` attention (`hopper.cu`): compiled with NVRTC, launched through the CUDA driver.

No compiler has to be installed: NVRTC comes with PyTorch's CUDA build. Compiling takes about a second for each form,
once a process, and the result serves every length and head count.
"""

import ctypes
import functools
import logging

import torch
from torch import Tensor

from kandinsky.model import nvrtc

_log = logging.getLogger(__name__)
HEAD_DIM = 64
GROUPS, KEYS, STAGES = 3, 128, 3
"""Warpgroups of 64 query rows, keys of a tile, tiles in flight: the fastest of those measured."""
SHARED = STAGES * (2 * KEYS * HEAD_DIM * 2 + 16) + 1024
"""Bytes of shared memory: keys and values, barriers, alignment."""
PLAIN, SHIFTED, RUNNING = range(3)
"""Forms of the kernel: for bounded logits, with a shift for each row, with a running maximum."""
_BFLOAT16, _SWIZZLE_128 = 9, 3  # values of the driver's enumerations


class _Arguments(ctypes.Structure):
    _fields_ = (
        ("qkv", ctypes.c_void_p),
        ("out", ctypes.c_void_p),
        ("flags", ctypes.c_void_p),
        ("row_stride", ctypes.c_longlong),
        ("tokens", ctypes.c_int),
        ("heads", ctypes.c_int),
    )


@functools.cache
def kernel(device: int, form: int = PLAIN) -> ctypes.c_void_p | None:
    """A form of the kernel on GPU `device`, or None where it cannot run."""
    if not nvrtc.is_hopper(device):
        return None
    macros = {
        "GROUPS": GROUPS,
        "KEYS": KEYS,
        "STAGES": STAGES,
        "ROW_BYTES": 2 * HEAD_DIM,
        "BEHIND": 2 * HEAD_DIM * KEYS,
        "MODE": form,
    }
    try:
        cubin = nvrtc.compile_source(nvrtc.source_of("hopper.cu"), "hopper.cu", macros)
    except (OSError, RuntimeError) as error:
        _log.warning("attention uses Triton's kernel instead of the Hopper one: %s", error)
        return None
    return nvrtc.load(cubin, "attend", device=device, shared=SHARED)


def launch(qkv: Tensor, out: Tensor) -> None:
    """Queue the kernel for logits of at most `bounded.MAX_LOGIT` on the current stream.

    Args:
        qkv, out: see `bounded.attend_bounded`.
    """
    _launch(PLAIN, qkv, out, None)


def launch_any(qkv: Tensor, out: Tensor) -> None:
    """Queue the kernel with a running maximum, for logits of any size; tensors as for `launch`."""
    _launch(RUNNING, qkv, out, None)


def launch_shifted(qkv: Tensor, out: Tensor) -> Tensor:
    """Queue the kernel with a shift for each row, and what must be done again with a running maximum behind it.

    Returns:
        What was done twice, int32 `[tiles of 192 queries x heads]`, 1 for each; valid when the stream gets there.
    """
    flags = torch.zeros(_tiles(qkv), dtype=torch.int32, device=qkv.device)
    for form in (SHIFTED, RUNNING):
        _launch(form, qkv, out, flags)
    return flags


def _tiles(qkv: Tensor) -> int:
    return -(-qkv.shape[0] // (64 * GROUPS)) * qkv.shape[2]


def _launch(form: int, qkv: Tensor, out: Tensor, flags: Tensor | None) -> None:
    tokens, _, heads, _ = qkv.shape
    device = qkv.device.index
    function = kernel(device, form)
    assert function is not None
    flagged = None if flags is None else flags.data_ptr()
    arguments = _Arguments(qkv.data_ptr(), out.data_ptr(), flagged, qkv.stride(0), tokens, heads)
    blocks = min(_tiles(qkv), nvrtc.processors(device))  # persistent: one block a multiprocessor
    nvrtc.launch(function, [_map_of(qkv)], arguments, blocks=blocks, threads=128 * (GROUPS + 1), shared=SHARED)


def _map_of(qkv: Tensor) -> nvrtc.TensorMap:
    """qkv as [tokens, 3 heads, 64] in boxes of [KEYS, 1, 64]; rows past the end read as zero."""
    tokens, _, heads, _ = qkv.shape
    sizes, strides = (HEAD_DIM, 3 * heads, tokens), (2 * HEAD_DIM, 2 * qkv.stride(0))
    return nvrtc.tensor_map(qkv.data_ptr(), _BFLOAT16, sizes, strides, (HEAD_DIM, 1, KEYS), _SWIZZLE_128)
