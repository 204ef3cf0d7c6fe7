"""The notebook runs from top to bottom with the tiny weights, its sizes checked but made small."""

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

MAKE_SMALL = """
import dataclasses
from kandinsky.config import FLASH_512
from kandinsky.video_shape import VideoShape

check = VideoShape.from_request

def small(seconds, height, width, *, model_set):
    check(seconds, height, width, model_set=model_set)
    return check(seconds, 64, 96, model_set=dataclasses.replace(FLASH_512, sizes=((64, 96),)))

VideoShape.from_request = small
"""


def test_notebook_runs(tmp_path):
    notebook = nbformat.read(ROOT / "examples.ipynb", as_version=4)
    notebook.cells.insert(0, nbformat.v4.new_code_cell(MAKE_SMALL))
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    NotebookClient(notebook, timeout=240, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    shown = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    kinds = {kind for output in shown for kind in output.get("data", {})}
    assert "image/png" in kinds
    assert any("<video" in output.get("data", {}).get("text/html", "") for output in shown)
    assert (tmp_path / "lighthouse.mp4").stat().st_size > 1000


def test_notebook_is_saved_without_outputs():
    notebook = nbformat.read(ROOT / "examples.ipynb", as_version=4)
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
