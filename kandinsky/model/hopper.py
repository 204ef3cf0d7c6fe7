"""The Hopper kernel of `bounded` attention (`hopper.cu`): compiled with NVRTC, launched through the CUDA driver.

No compiler has to be installed: NVRTC comes with PyTorch's CUDA build. Compiling takes about a second for each form,
once a process, and the result serves every length and head count.
"""

import ctypes
import functools
import logging
from pathlib import Path

import torch
from torch import Tensor

_log = logging.getLogger(__name__)
HEAD_DIM = 64
GROUPS, KEYS, STAGES = 3, 128, 3
"""Warpgroups of 64 query rows, keys of a tile, tiles in flight: the fastest of those measured."""
SHARED = STAGES * (2 * KEYS * HEAD_DIM * 2 + 16) + 1024
"""Bytes of shared memory: keys and values, barriers, alignment."""
PLAIN, SHIFTED, RUNNING = range(3)
"""Forms of the kernel: for bounded logits, with a shift for each row, with a running maximum."""
_BFLOAT16, _SWIZZLE_128, _L2_128, _MAX_SHARED = 9, 3, 2, 8  # values of the driver's enumerations


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
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) != (9, 0):
        return None
    try:
        cubin = compile_source(Path(__file__).with_suffix(".cu").read_bytes(), form)
    except (OSError, RuntimeError) as error:
        _log.warning("attention uses Triton's kernel instead of the Hopper one: %s", error)
        return None
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # makes the device's primary context current
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        _done(_driver().cuModuleLoadData(ctypes.byref(module), cubin))
        _done(_driver().cuModuleGetFunction(ctypes.byref(function), module, b"attend"))
        _done(_driver().cuFuncSetAttribute(function, _MAX_SHARED, SHARED))
    return function


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
    _memory, tensor_map = _tensor_map(qkv.data_ptr(), tokens, heads, 2 * qkv.stride(0))
    flagged = None if flags is None else flags.data_ptr()
    arguments = _Arguments(qkv.data_ptr(), out.data_ptr(), flagged, qkv.stride(0), tokens, heads)
    blocks = min(_tiles(qkv), _processors(device))  # persistent: one block a multiprocessor
    parameters = (ctypes.c_void_p * 2)(tensor_map, ctypes.addressof(arguments))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    threads = 128 * (GROUPS + 1)
    _done(_driver().cuLaunchKernel(kernel(device, form), blocks, 1, 1, threads, 1, 1, SHARED, stream, parameters, None))


def compile_source(source: bytes, form: int = PLAIN) -> bytes:
    """CUDA C++ to machine code for sm_90a.

    Raises:
        OSError: NVRTC is not there.
        RuntimeError: it does not compile.
    """
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, b"hopper.cu", 0, None, None):
        raise RuntimeError("NVRTC could not start")
    macros = {"GROUPS": GROUPS, "KEYS": KEYS, "STAGES": STAGES, "MODE": form}
    options = [b"--gpu-architecture=sm_90a", b"--std=c++17"]
    options += [f"--define-macro={name}={value}".encode() for name, value in macros.items()]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    result = "ProgramLog" if failed else "CUBIN"
    size = ctypes.c_size_t()
    nvrtc[f"nvrtcGet{result}Size"](program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    nvrtc[f"nvrtcGet{result}"](program, content)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(f"hopper.cu does not compile: {content.value.decode()}")
    return content.raw


def _nvrtc() -> ctypes.CDLL:
    name = f"libnvrtc.so.{(torch.version.cuda or '').split('.')[0]}"
    site = Path(torch.__file__).parents[1]  # pip installs NVRTC beside torch, outside of the loader's path
    for path in (name, *map(str, site.glob(f"nvidia/*/lib/{name}")), "libnvrtc.so"):
        try:
            return ctypes.CDLL(path)
        except OSError:
            _log.debug("no NVRTC at %s", path)
    raise OSError(f"{name} not found")


@functools.cache
def _driver() -> ctypes.CDLL:
    return ctypes.CDLL("libcuda.so.1")


def _done(code: int) -> None:
    if code:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"CUDA driver error {code}: {(text.value or b'unknown').decode()}")


@functools.lru_cache(maxsize=256)
def _tensor_map(address: int, tokens: int, heads: int, row_bytes: int) -> tuple[object, int]:
    """A TMA descriptor of qkv as [tokens, 3 heads, 64] in boxes of [KEYS, 1, 64]; rows past the end read as zero.

    Returns the memory that holds it, and its address in there, a multiple of 64.
    """
    memory = ctypes.create_string_buffer(192)
    aligned = (ctypes.addressof(memory) + 63) & ~63
    u64, u32 = ctypes.c_uint64, ctypes.c_uint32
    sizes, strides = (u64 * 3)(HEAD_DIM, 3 * heads, tokens), (u64 * 2)(2 * HEAD_DIM, row_bytes)
    box, steps = (u32 * 3)(HEAD_DIM, 1, KEYS), (u32 * 3)(1, 1, 1)
    target, source = ctypes.c_void_p(aligned), ctypes.c_void_p(address)
    encode = _driver().cuTensorMapEncodeTiled
    _done(encode(target, _BFLOAT16, 3, source, sizes, strides, box, steps, 0, _SWIZZLE_128, _L2_128, 0))
    return memory, aligned


@functools.cache
def _processors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count
