"""The notebook runs from top to bottom with the embedded tiny model."""

import ast
from importlib import import_module

import nbformat
import pytest
from helpers import ROOT
from nbclient import NotebookClient


@pytest.mark.slow
def test_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "examples.ipynb", as_version=4)
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert any("<video" in output.get("data", {}).get("text/html", "") for output in shown)
    assert (tmp_path / "video.mp4").stat().st_size > 1000


def test_notebook_is_saved_without_outputs():
    notebook = nbformat.read(ROOT / "examples.ipynb", as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")


def test_what_the_notebook_takes_from_the_package_is_there():
    """All of it is run by the slow test; this one tells of names that are gone."""
    notebook = nbformat.read(ROOT / "examples.ipynb", as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    taken = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    ours = [(node.module, alias.name) for node in taken for alias in node.names if node.module.startswith("kandinsky")]
    assert ours
    for module, name in ours:
        assert hasattr(import_module(module), name), f"{module}.{name}"
