"""Runs the source of a kernel for Hopper on a CPU: g++ compiles it with `hopper_on_a_cpu.h` in place of its assembly.

It shows that the indices, layouts and arithmetic of the source are right. It does not show that the GPU's instructions
are as the header has them, nor anything about time.
"""

import re
import shutil
import subprocess
from pathlib import Path

import torch
from torch import Tensor

from kandinsky.model import hopper_float8
from kandinsky.model.nvrtc import source_of

COMPILER = shutil.which("g++")
_HERE = Path(__file__).parent
_DEFINITION = r"^(?:template <int N> )?(?:DEVICE|extern \"C\" __global__)[^\n;{{}}]*\n?[^\n;{{}}]*\b{name}\("
_OURS = re.findall(r"^(?:template .*> )?(?:[\w]+ )+(\w+)\(", (_HERE / "hopper_on_a_cpu.h").read_text(), re.MULTILINE)
_DONE_HERE = (*dict.fromkeys(_OURS), "begin", "write_ones", "attend")
"""Functions of the kernel that the header has, or the program around it."""


def _without(source: str, name: str) -> str:
    """The source without the definitions of a function."""
    while found := re.search(_DEFINITION.format(name=name), source, re.MULTILINE):
        depth, end = 1, source.index("{", found.end()) + 1
        while depth:
            depth += {"{": 1, "}": -1}.get(source[end], 0)
            end += 1
        source = source[: found.start()] + source[end:]
    return source


def compiled(dtype: torch.dtype, folder: Path) -> Path:
    """The program for queries and keys of a dtype, in a folder of its own."""
    source = source_of("hopper_float8.cu").decode()
    for name in _DONE_HERE:
        source = _without(source, name)
    source = re.sub(r"^(typedef unsigned|struct alignas\(64\) TensorMap).*$", "", source, flags=re.MULTILINE)
    (folder / "kernel.inc").write_text(source)
    alone = hopper_float8.macros(dtype) | {"GROUPS": 1}  # as many threads as needed
    macros = [f"-D{name}={value}" for name, value in alone.items()]
    program = folder / "program"
    command = [COMPILER or "g++", "-std=c++20", "-O2", "-w", "-pthread", *macros, f"-I{folder}", f"-I{_HERE}"]
    subprocess.run([*command, str(_HERE / "hopper_float8_on_a_cpu.cpp"), "-o", str(program)], check=True)
    return program


def run(program: Path, queries_keys: Tensor, values: Tensor) -> Tensor:
    """What `hopper_float8.launch` would return, from CPU tensors."""
    tokens, _, heads, dim = queries_keys.shape
    files = [program.with_name(name) for name in ("queries_keys", "values", "out")]
    for file, tensor in zip(files, (queries_keys, values), strict=False):
        file.write_bytes(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    subprocess.run([program, str(tokens), str(heads), *map(str, files)], check=True, timeout=120)
    return torch.frombuffer(bytearray(files[2].read_bytes()), dtype=torch.bfloat16).view(tokens, heads, dim)
