"""Steps as CUDA graphs, on a GPU."""

import json

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from training_helpers import KINDS, run


@pytest.fixture
def own_precision():
    """Precision is a state of the process, of accelerate and of PyTorch."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    torch.set_float32_matmul_precision("highest")


@pytest.mark.gpu
@pytest.mark.usefixtures("own_precision")
@pytest.mark.parametrize("precision", ["tf32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_graphs_change_nothing(kind, precision, data, teacher, tmp_path):
    """Every batch's shape is recorded and replayed; the weights after some steps are those of steps without graphs."""
    common = {"steps": 12, "save_every": 0, "mixed_precision": precision}
    plain = run(kind, data, teacher, tmp_path / "plain", **common)
    graphed = run(kind, data, teacher, tmp_path / "graphed", cuda_graphs=True, **common)
    expected = load_file(plain / "model.safetensors")
    for name, value in load_file(graphed / "model.safetensors").items():
        torch.testing.assert_close(
            value, expected[name], atol=2e-5, rtol=1e-3, msg=lambda text, name=name: f"{name}: {text}"
        )
    lines = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("plain", "graphed")]
    for key, value in lines[0].items():
        assert key in ("seconds", "peak_gib") or lines[1][key] == pytest.approx(value, rel=1e-3, abs=1e-5), key
