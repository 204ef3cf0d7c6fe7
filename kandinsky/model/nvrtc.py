"""CUDA C++ on NVIDIA's Hopper GPUs without an installed compiler: NVRTC compiles, the driver loads and launches.

NVRTC comes with PyTorch's CUDA build. What a kernel means is said where its source lies.
"""

import ctypes
import functools
import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

_log = logging.getLogger(__name__)
_MAX_SHARED, _L2_128 = 8, 2  # values of the driver's enumerations


Kept = Callable[[str, Callable[[], bytes]], bytes]
"""(key, make) -> what `make` returned when this key was first asked for, perhaps by another process."""
_kept: list[Kept] = []


def keep_code(kept: Kept) -> None:
    """Take machine code from where earlier processes left it, from now on."""
    _kept[:] = [kept]


@dataclass(frozen=True)
class TensorMap:
    """A descriptor of a tensor in GPU memory, from which the tensor memory accelerator copies boxes.

    Args:
        memory: what holds it.
        address: of it in there, a multiple of 64.
    """

    memory: object
    address: int


def is_hopper(device: int) -> bool:
    """Whether GPU `device` runs code for sm_90a and PyTorch is one for CUDA."""
    return torch.version.cuda is not None and torch.cuda.get_device_capability(device) == (9, 0)


def source_of(name: str) -> bytes:
    """A kernel for Hopper that lies beside this module, behind what they all share.

    Raises:
        OSError: it cannot be read.
    """
    return b"".join(Path(__file__).with_name(part).read_bytes() for part in ("hopper_common.cu", name))


def compile_source(source: bytes, name: str, macros: Mapping[str, object]) -> bytes:
    """CUDA C++ to machine code for sm_90a; what `keep_code` was given is asked first.

    Args:
        source: of one kernel.
        name: of its file, for messages.
        macros: defined before it.

    Raises:
        OSError: NVRTC is not there.
        RuntimeError: it does not compile.
    """
    versions = f"torch {torch.__version__} CUDA {torch.version.cuda}"
    key = f"{name} {dict(macros)} {versions} {hashlib.sha256(source).hexdigest()}"
    kept = _kept[0] if _kept else lambda _key, make: make()
    return kept(key, lambda: _compile(source, name, macros))


def _compile(source: bytes, name: str, macros: Mapping[str, object]) -> bytes:
    nvrtc, program = library(), ctypes.c_void_p()
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source, name.encode(), 0, None, None):
        raise RuntimeError("NVRTC could not start")
    options = [b"--gpu-architecture=sm_90a", b"--std=c++17"]
    options += [f"--define-macro={macro}={value}".encode() for macro, value in macros.items()]
    failed = nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    result = "ProgramLog" if failed else "CUBIN"
    size = ctypes.c_size_t()
    nvrtc[f"nvrtcGet{result}Size"](program, ctypes.byref(size))
    content = ctypes.create_string_buffer(size.value)
    nvrtc[f"nvrtcGet{result}"](program, content)
    nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise RuntimeError(f"{name} does not compile: {content.value.decode()}")
    return content.raw


def load(cubin: bytes, function_name: str, *, device: int, shared: int) -> ctypes.c_void_p:
    """A function of compiled code on GPU `device`, which may have `shared` bytes of shared memory."""
    with torch.cuda.device(device):
        torch.cuda.current_stream().synchronize()  # makes the device's primary context current
        module, function = ctypes.c_void_p(), ctypes.c_void_p()
        done(driver().cuModuleLoadData(ctypes.byref(module), cubin))
        done(driver().cuModuleGetFunction(ctypes.byref(function), module, function_name.encode()))
        done(driver().cuFuncSetAttribute(function, _MAX_SHARED, shared))
    return function


def launch(
    function: ctypes.c_void_p,
    maps: Sequence[TensorMap],
    arguments: ctypes.Structure,
    *,
    blocks: int,
    threads: int,
    shared: int,
) -> None:
    """Queue a function, whose parameters are tensor maps and then a structure, on the current stream."""
    addresses = [*(tensor_map.address for tensor_map in maps), ctypes.addressof(arguments)]
    parameters = (ctypes.c_void_p * len(addresses))(*addresses)
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    done(driver().cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared, stream, parameters, None))


@functools.lru_cache(maxsize=256)
def tensor_map(
    address: int,
    kind: int,
    sizes: tuple[int, ...],
    strides: tuple[int, ...],
    box: tuple[int, ...],
    swizzle: int,
) -> TensorMap:
    """A descriptor; what is copied from outside of the tensor is zero.

    Args:
        address: of the tensor.
        kind: of its elements, in the driver's enumeration.
        sizes: of its axes, the one with stride 1 first.
        strides: of the other axes, in bytes.
        box: sizes of what is copied at once.
        swizzle: order of 16-byte units in shared memory, in the driver's enumeration.
    """
    memory = ctypes.create_string_buffer(192)
    aligned = (ctypes.addressof(memory) + 63) & ~63
    axes, u64, u32 = len(sizes), ctypes.c_uint64, ctypes.c_uint32
    arrays = (u64 * axes)(*sizes), (u64 * (axes - 1))(*strides), (u32 * axes)(*box), (u32 * axes)(*[1] * axes)
    target, source = ctypes.c_void_p(aligned), ctypes.c_void_p(address)
    done(driver().cuTensorMapEncodeTiled(target, kind, axes, source, *arrays, 0, swizzle, _L2_128, 0))
    return TensorMap(memory, aligned)


@functools.cache
def processors(device: int) -> int:
    """Multiprocessors of GPU `device`."""
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def driver() -> ctypes.CDLL:
    """The CUDA driver's library."""
    return ctypes.CDLL("libcuda.so.1")


def done(code: int) -> None:
    """Refuse what the driver reports.

    Raises:
        RuntimeError: with the driver's text.
    """
    if code:
        text = ctypes.c_char_p()
        driver().cuGetErrorString(code, ctypes.byref(text))
        raise RuntimeError(f"CUDA driver error {code}: {(text.value or b'unknown').decode()}")


def library() -> ctypes.CDLL:
    """NVRTC of PyTorch's version of CUDA.

    Raises:
        OSError: it is not there.
    """
    name = f"libnvrtc.so.{(torch.version.cuda or '').split('.')[0]}"
    site = Path(torch.__file__).parents[1]  # pip installs NVRTC beside torch, outside of the loader's path
    for path in (name, *map(str, site.glob(f"nvidia/*/lib/{name}")), "libnvrtc.so"):
        try:
            return ctypes.CDLL(path)
        except OSError:
            _log.debug("no NVRTC at %s", path)
    raise OSError(f"{name} not found")
