"""Triton's kernels compiled for cards that are not here: what each needs of a card, and what a card has."""

import re
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kandinsky.model import float8_operands, kernels, triton_attention
from kandinsky.vae import float8_convolution
from kandinsky.vae import kernels as vae_kernels
from kandinsky.vae.float8_convolution import Tile

SHARED = {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}
"""KB of shared memory that one block may have, by compute capability (CUDA C++ Programming Guide, table of
"Technical Specifications per Compute Capability")."""
REGISTERS = 65536
"""Of a multiprocessor, on all of these: what a block's threads have together at most."""
SPILLED = 16
"""Bytes of a thread: four registers. What Triton 3.6 needs of it, 3.9 mostly does not (docs/gpus.md)."""
AMD = "gfx942"
AMD_SHARED, AMD_REGISTERS = 64 * 1024, 512
"""Bytes of local memory of a block, and registers of a thread (AMD Instinct MI300 instruction set)."""
DIM, HIDDEN, HEADS = 3072, 12288, 48
"""Of the published model."""


@dataclass(frozen=True)
class Kernel:
    """A kernel with the types and constants that it is launched with.

    Args:
        name: what it is told apart by.
        function: of `triton.jit`.
        types: of its arguments in their order; constants are left out.
        constants: by name.
        warps, stages: of a launch.
        capability: smallest that it is launched on.
        newest: largest that it is launched on; None for all.
        on_amd: whether it can be compiled for AMD's cards: it has no instructions of NVIDIA's and no float8 of theirs.
    """

    name: str
    function: Any
    types: tuple[str, ...]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    capability: int = 80
    on_amd: bool = True
    newest: int | None = None

    def is_for(self, capability: int) -> bool:
        """Whether it is launched on such a card."""
        return self.capability <= capability <= (self.newest or capability)

    def signature(self) -> dict[str, str]:
        types = iter(self.types)
        return {name: "constexpr" if name in self.constants else next(types) for name in self.function.arg_names}


@dataclass(frozen=True)
class Use:
    """What a compiled kernel takes: bytes of shared memory, registers of a thread, bytes of spilled registers."""

    shared: int
    registers: int
    spilled: int


def _element_wise() -> list[Kernel]:
    block, largest = triton.next_power_of_2(DIM), kernels.FLOAT8_MAX
    rows: list[Kernel] = []
    for quantise in (False, True):
        out, capability = ("*fp8e4nv", 89) if quantise else ("*bf16", 80)
        for residual in (False, True):
            types = ("*bf16",) * 7 + ("*i32", "*bf16", out, "*fp32" if quantise else "*bf16", "i32", "i32", "fp32")
            constants = {"block": block, "residual": residual, "quantise": quantise, "largest": largest}
            name = f"add_norm, residual {residual}, float8 {quantise}"
            warps, on_amd = kernels._warps(block), not quantise
            rows.append(Kernel(name, kernels._add_norm, types, constants, warps, 3, capability, on_amd))
    heads = {**kernels.blocks(HEADS, 64), "head_dim": 64}
    rows.append(Kernel("norm_rope", kernels._norm_rope, ("*bf16",) * 5 + ("*fp32", "i32", "fp32", "fp32"), heads))
    hidden = {"block": HIDDEN, "chunk": 4096, "largest": largest}
    types = ("*bf16", "*fp8e4nv", "*fp32", "i32")
    rows.append(Kernel("gelu, float8", kernels._gelu_quantise, types, hidden, 8, 3, 89, False))
    whole = {"block": block, "largest": largest}
    rows.append(Kernel("float8 rows", kernels._quantise, types, whole, kernels._warps(block), 3, 89, False))
    return rows


def _attention(capability: int) -> list[Kernel]:
    rows = triton_attention.rows_on(divmod(capability, 10))
    keys, dim = triton_attention.KEYS, triton_attention.HEAD_DIM
    tiles = tuple(f"tensordesc<bf16[{block}, {dim}]>" for block in (rows, keys, keys))
    types, constants = (*tiles, "*bf16", "i32", "i32"), {"rows_": rows, "keys_": keys, "dim": dim}
    forms = {"attention": False, "attention, running maximum": True}
    return [
        Kernel(name, triton_attention._attend, types, {**constants, "running": running}, on_amd=False)
        for name, running in forms.items()
    ]


def _float8_operands() -> list[Kernel]:
    tile, heads = float8_operands.TOKENS, triton.next_power_of_2(HEADS)
    rows = [
        Kernel(
            "float8 values",
            float8_operands._values,
            ("*bf16", "*fp8e4nv", *("i32",) * 4),
            {"block": tile, "dim": 64},
            4,
            3,
            90,
            False,
        )
    ]
    for out in ("*fp16", "*fp8e4nv"):
        kind = "float8" if out == "*fp8e4nv" else "float16"
        types = ("*bf16", out, "i32", "i32", "fp32")
        constants = {"block_heads": heads, "head_dim": 64}
        rows.append(
            Kernel(f"{kind} queries and keys", float8_operands._queries_keys, types, constants, 4, 3, 90, False)
        )
        types = ("*bf16", out, *("*bf16",) * 4, "*fp32", "i32", *("fp32",) * 3)
        name, function = f"norm_rope, {kind} queries and keys", float8_operands._norm_rope_queries_keys
        rows.append(Kernel(name, function, types, {**kernels.blocks(HEADS, 64), "head_dim": 64}, 4, 3, 90, False))
    return rows


def _decoder() -> list[Kernel]:
    rows: list[Kernel] = []
    for channels in (128, 256, 512):
        block = vae_kernels.block_of(channels)
        for add, quarters in ((False, True), (True, False)):
            flags = {"ADD": add, "FIRST": 1, "HALVE": not add, "PAIRED": add, "QUARTERS": quarters}
            types = ("*bf16", "*bf16", "*fp32", "*fp32", *("i32",) * 5)
            name = f"VAE sums, {channels} channels, sum {add}"
            rows.append(Kernel(name, vae_kernels._sums_kernel, types, {"C": channels, "BLOCK": block, **flags}))
        combine = {"C": channels, "GROUP": channels // 32, "BLOCK": 128}
        types = ("*fp32",) * 5 + ("i32", "fp32", "fp32")
        rows.append(Kernel(f"VAE statistics, {channels} channels", vae_kernels._combine_kernel, types, combine))
        flags = {"Z_FIRST": 1, "SIZE": 2, "SPLIT": True, "QUARTERS": True}
        for scaled in (False, True):
            out, capability = ("*fp8e4nv", 90) if scaled else ("*bf16", 80)
            types = ("*bf16", "*fp32", "*bf16", "*fp32", out, *("i32",) * 7)
            constants = {"C": channels, "BLOCK": block, **flags, "SCALED": scaled}
            name = f"VAE norm, {channels} channels" + ", float8" * scaled
            rows.append(
                Kernel(name, vae_kernels._normalise_kernel, types, constants, 4, 3, capability, on_amd=not scaled)
            )
    return rows


def _float8_convolutions() -> list[Kernel]:
    rows: list[Kernel] = []
    for inputs, outputs in ((128, 128), (256, 128), (512, 512)):
        tile = Tile.of(384, 672, outputs)
        pixels = f"1, {tile.rows}, {tile.columns}"
        tiles = (
            (pixels, tile.channels, "fp8e4nv"),
            (tile.outputs, tile.channels, "fp8e4nv"),
            (pixels, tile.outputs, "bf16"),
        )
        types = (*(f"tensordesc<{dtype}[{size}, {last}]>" for size, last, dtype in tiles), "*fp32", *("i32",) * 3)
        constants = {"INPUTS": inputs, "OUTPUTS": outputs, "KT": 3, "ROWS": tile.rows, "COLUMNS": tile.columns}
        constants |= {"BLOCK": tile.outputs, "AT_ONCE": tile.channels}
        name = f"VAE convolution in float8, {inputs} to {outputs} channels"
        launch = {"warps": tile.warps, "stages": tile.stages, "capability": 90, "newest": 90, "on_amd": False}
        rows.append(Kernel(name, float8_convolution._convolve, types, constants, **launch))
    return rows


@cache
def kernels_of_ours(capability: int = 90) -> tuple[Kernel, ...]:
    """Every kernel, with the sizes of the published model and the tiles that a compute capability gets."""
    return (*_attention(capability), *_element_wise(), *_float8_operands(), *_decoder(), *_float8_convolutions())


def _compiled(kernel: Kernel, target: GPUTarget) -> Any:
    """No card is needed."""
    source = ASTSource(fn=kernel.function, signature=kernel.signature(), constexprs=kernel.constants)
    return triton.compile(source, target=target, options={"num_warps": kernel.warps, "num_stages": kernel.stages})


def sums_on(kernel: Kernel, capability: int) -> list[str]:
    """How the threads that sum something hold it, as Triton writes it, with aligned buffers as PyTorch's are."""
    function = kernel.function
    names = [name for name in function.arg_names if name not in kernel.constants]
    pointers = [name for name, kind in zip(names, kernel.types, strict=True) if kind.startswith("*")]
    aligned = {(function.arg_names.index(name),): [["tt.divisibility", 16]] for name in pointers}
    source = ASTSource(function, kernel.signature(), kernel.constants, aligned)
    target = GPUTarget("cuda", capability, 32)
    told = triton.compile(source, target=target, options={"num_warps": kernel.warps}).asm["ttgir"]
    layouts = dict(re.findall(r"^(#\w+) = (.*)$", told, re.MULTILINE))
    return [layouts[name] for name in re.findall(r"\) : \(tensor<[^>]*, (#\w+)>\) -> tensor", told)]


def use_on(kernel: Kernel, capability: int) -> Use:
    """What a kernel takes on an NVIDIA card."""
    compiled = _compiled(kernel, GPUTarget("cuda", capability, 32))
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder) / "kernel.cubin"
        cubin.write_bytes(compiled.asm["cubin"])
        command = [str(tool), "--dump-resource-usage", str(cubin)]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    fields = dict(word.split(":") for word in told.split() if word.count(":") == 1 and not word.endswith(":"))
    return Use(compiled.metadata.shared, int(fields["REG"]), int(fields["STACK"]) + int(fields["LOCAL"]))


def use_on_amd(kernel: Kernel) -> Use:
    """What a kernel takes on AMD's gfx942; `spilled` counts registers there."""
    compiled = _compiled(kernel, GPUTarget("hip", AMD, 64))
    lines = (line.split(":") for line in compiled.asm["amdgcn"].splitlines() if line.count(":") == 1)
    fields = {name.strip(): value.strip() for name, value in lines}
    spilled = int(fields[".vgpr_spill_count"]) + int(fields[".sgpr_spill_count"])
    return Use(compiled.metadata.shared, int(fields[".vgpr_count"]), spilled)


def use_of(index: int, card: int | str) -> Use:
    """What a kernel takes, by its place in `kernels_of_ours`, on NVIDIA's cards of a compute capability or on `AMD`."""
    return use_on_amd(kernels_of_ours()[index]) if isinstance(card, str) else use_on(kernels_of_ours(card)[index], card)
