"""Triton launches on the current device, whatever its tensors are on: each launch has to say whose it is."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "kandinsky"
FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if "import triton\n" in path.read_text(encoding="utf-8")]
GUARDS = ("torch.cuda.device_of", "torch.cuda.device")


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
