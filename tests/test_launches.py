"""Triton launches on the current device, whatever its tensors are on: each launch has to say whose it is.

So has whatever else PyTorch takes the current device for.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kandinsky"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "import triton\n" in path.read_text(encoding="utf-8")]
GUARDS = ("torch.cuda.device_of", "torch.cuda.device")

OF_A_DEVICE = (
    "Stream",
    "current_stream",
    "get_device_capability",
    "get_device_name",
    "get_device_properties",
    "max_memory_allocated",
    "mem_get_info",
    "memory_allocated",
    "memory_reserved",
    "reset_peak_memory_stats",
    "synchronize",
)
"""Of torch.cuda: without a device they are about the current one."""
CALLERS_SAY = ("model/nvrtc.py", "training/graphs.py")
"""The first is launched by `bounded` and `float8_attention`, on their tensors' device; the second has its process's."""


def kernels_in(tree: ast.Module) -> set[str]:
    """Names of the functions that `triton.jit` decorates."""
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and any("triton.jit" in ast.unparse(mark) for mark in node.decorator_list)
    }


def launches_in(node: ast.AST, kernels: set[str], *, guarded: bool = False) -> list[tuple[str, bool]]:
    """Name of each kernel that is launched (`kernel[grid](...)`), and whether on the device of a tensor."""
    found = []
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Subscript) and ast.unparse(node.func.value) in kernels:
        found.append((ast.unparse(node.func.value), guarded))
    if isinstance(node, ast.With):
        guarded = guarded or any(ast.unparse(item.context_expr).startswith(GUARDS) for item in node.items)
    for child in ast.iter_child_nodes(node):
        found += launches_in(child, kernels, guarded=guarded)
    return found


def of_the_current_device(node: ast.AST, *, guarded: bool = False) -> list[str]:
    """Calls of `OF_A_DEVICE` that do not say which, outside of a device's own context."""
    found = []
    if isinstance(node, ast.Call) and not node.args and not node.keywords and not guarded:
        name = ast.unparse(node.func)
        found = [name] if name.removeprefix("torch.cuda.") in OF_A_DEVICE and name.startswith("torch.cuda.") else []
    if isinstance(node, ast.With):
        guarded = guarded or any(ast.unparse(item.context_expr).startswith(GUARDS) for item in node.items)
    return found + [
        name for child in ast.iter_child_nodes(node) for name in of_the_current_device(child, guarded=guarded)
    ]


def test_nothing_is_about_the_current_device():
    """A pipeline's parts may be on several GPUs, none of which has to be the current one."""
    files = [path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).as_posix() not in CALLERS_SAY]
    found = {path.name: of_the_current_device(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert {name: calls for name, calls in found.items() if calls} == {}


def test_the_test_sees_what_is_about_the_current_device():
    tree = ast.parse(
        "torch.cuda.synchronize()\ntorch.cuda.synchronize(x)\nwith torch.cuda.device(d): torch.cuda.synchronize()"
    )
    assert of_the_current_device(tree) == ["torch.cuda.synchronize"]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_launch_is_on_the_device_of_its_tensors(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    launches = launches_in(tree, kernels_in(tree))
    assert launches
    assert [name for name, guarded in launches if not guarded] == []


def test_the_test_sees_a_launch_without_one():
    tree = ast.parse(
        "@triton.jit\ndef _k(x): ...\ndef f(x):\n    _k[(1,)](x)\n    with torch.cuda.device_of(x): _k[(1,)](x)"
    )
    assert launches_in(tree, kernels_in(tree)) == [("_k", False), ("_k", True)]
