"""The converted copy of the DiT: whole, equal, preferred, and found out when it is stale or cut."""

import json
import shutil

import pytest
import torch
from helpers import TINY
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint import locate as hub
from kandinsky.checkpoint import safetensors_file
from kandinsky.checkpoint.convert import convert, is_block_linear
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.cli.main import main
from kandinsky.config import FLASH_512
from kandinsky.errors import CheckpointError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.model.quantised import quantise_weight
from kandinsky.model.sizes import is_quantised

CPU = torch.device("cpu")
NAME = "kandinsky4_distil_512"


@pytest.fixture
def weights(tmp_path):
    return shutil.copytree(TINY, tmp_path / "w")


def located(weights, precision="exact"):
    found = hub.locate(weights, model_set=FLASH_512, given={}, local_files_only=True, revision={}, precision=precision)
    return found.dit.name


def test_copy_is_equal_and_preferred(weights, capsys):
    assert located(weights) == f"{NAME}.pt"
    assert main(["convert", "--weights", str(weights), "--no-progress"]) == 0
    assert capsys.readouterr().out.strip() == str(weights / f"{NAME}.safetensors")
    assert located(weights) == located(weights, "fast") == f"{NAME}.safetensors"
    original = torch.load(weights / f"{NAME}.pt", weights_only=True)
    copy = load_file(weights / f"{NAME}.safetensors")
    assert original.keys() == copy.keys()
    assert all(torch.equal(copy[name], value) and copy[name].dtype == value.dtype for name, value in original.items())
    assert sorted(path.name for path in weights.iterdir() if "unfinished" in path.name) == []


def test_pipeline_from_the_copy(weights, pipe):
    convert(weights, device=CPU, progress=False)
    other = get_T2V_pipeline("cpu", cache_dir=weights, local_files_only=True, progress=False)
    expected = pipe.dit.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in other.dit.state_dict().items())


def test_stale_or_cut_copy_is_not_taken(weights):
    path = convert(weights, device=CPU, progress=False)
    whole = path.read_bytes()
    for content in (whole[:-1], whole[:100], b""):
        path.write_bytes(content)
        assert located(weights) == f"{NAME}.pt"
    path.write_bytes(whole)
    assert located(weights) == path.name
    with (weights / f"{NAME}.pt").open("ab") as file:
        file.write(b"changed")
    assert located(weights) == f"{NAME}.pt"


def test_a_failure_leaves_nothing(weights, monkeypatch):
    monkeypatch.setattr("kandinsky.checkpoint.files.TorchFile.tensor", lambda *_arguments: 1 / 0)
    before = sorted(weights.iterdir())
    with pytest.raises(ZeroDivisionError):
        convert(weights, device=CPU, progress=False)
    assert sorted(weights.iterdir()) == before


def test_without_the_published_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"kandinsky4_distil_512\.pt not found"):
        convert(tmp_path, device=CPU, progress=False)


def test_which_linears_are_float8(pipe):
    names = [name for name in pipe.dit.state_dict() if is_block_linear(name)]
    expected = [
        f"{name}.weight"
        for name, module in pipe.dit.named_modules()
        if isinstance(module, torch.nn.Linear) and ("self_attention." in name or "feed_forward." in name)
    ]
    assert sorted(names) == sorted(expected)


def test_float8_copy(weights):
    path = convert(weights, precision="fast", device=CPU, progress=False)
    assert located(weights, "fast") == path.name == f"{NAME}_fast.safetensors"
    assert located(weights) == f"{NAME}.pt"
    checkpoint = open_checkpoint(path)
    assert is_quantised(checkpoint)
    name = "transformer_blocks.0.1.feed_forward.in_layer.weight"
    original = torch.load(weights / f"{NAME}.pt", weights_only=True)[name].float()
    values = checkpoint.tensor(name, CPU)
    scale = checkpoint.tensor(name.replace("weight", "scale"), CPU)
    assert (values.dtype, scale.dtype, scale.shape) == (torch.float8_e4m3fn, torch.float32, (1, 512))
    assert (values.float() * scale.T - original).norm() < 0.04 * original.norm()


def test_float8_copy_alone_is_enough_for_fast(weights):
    path = convert(weights, precision="fast", device=CPU, progress=False)
    (weights / f"{NAME}.pt").unlink()
    assert located(weights, "fast") == path.name
    with pytest.raises(FileNotFoundError, match=rf"{NAME}\.pt  from"):
        located(weights)


def test_float8_is_rounded_by_the_book():
    """Scale and weights as exact arithmetic with one rounding each gives them: no device can do otherwise."""
    weight = torch.randn(50, 301, generator=torch.Generator().manual_seed(0)).bfloat16()
    weight[0] = 0
    values, scale = quantise_weight(weight)
    largest = weight.double().abs().amax(1).clamp(min=1e-12).float().double()
    assert torch.equal(scale[0], (largest * torch.tensor(1 / 448.0).float().double()).float())
    quotient = (weight.double() / scale.T.double()).float().double()
    exponent = torch.frexp(quotient)[1].clamp(min=-5) - 4  # of a step between neighbours: 2^-9 for the smallest
    steps = 2.0 ** exponent.double()
    assert torch.equal(values.double(), (quotient / steps).round() * steps)  # halves to even


def test_float8_weights_are_refused_where_they_do_not_belong(tmp_path):
    state = torch.load(TINY / f"{NAME}.pt", weights_only=True)
    state["transformer_blocks.0.0.self_attention.to_query_key_value.scale"] = torch.ones(1, 384)
    save_file(state, tmp_path / "fast.safetensors")
    with pytest.raises(ValueError, match=r"fast\.safetensors holds float8 weights: it is for precision='fast'"):
        get_T2V_pipeline("cpu", cache_dir=TINY, dit_path=tmp_path / "fast.safetensors")


def test_written_file_is_a_safetensors_file(tmp_path):
    tensors = {"a": torch.randn(3, 5).bfloat16(), "b": torch.arange(4), "c": torch.zeros(())}
    layout = {name: (value.dtype, tuple(value.shape)) for name, value in tensors.items()}
    safetensors_file.write(tmp_path / "t.safetensors", layout, tensors.items(), metadata={"source": "x"})
    assert all(torch.equal(tensors[name], value) for name, value in load_file(tmp_path / "t.safetensors").items())
    header = safetensors_file.read_header(tmp_path / "t.safetensors")
    assert header.size == (tmp_path / "t.safetensors").stat().st_size
    assert header.metadata == {"source": "x"}
    assert header.entries["a"].shape == (3, 5)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 16, (9).to_bytes(8, "little") + b'{"a": {}}', b"\x02" + bytes(7) + b"[]"]
)
def test_what_is_no_header(tmp_path, content):
    (tmp_path / "t.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.safetensors is not a safetensors file"):
        safetensors_file.read_header(tmp_path / "t.safetensors")
    assert json.dumps({"a": {}}) == '{"a": {}}'


def test_published_file_that_is_quantised_is_not_converted(weights):
    state = torch.load(weights / f"{NAME}.pt", weights_only=True)
    state["transformer_blocks.0.0.self_attention.to_query_key_value.scale"] = torch.ones(1, 384)
    torch.save(state, weights / f"{NAME}.pt")
    with pytest.raises(CheckpointError, match="is quantised already"):
        convert(weights, device=CPU, progress=False)


def test_sizes_of_float8_weights_without_values():
    weight = torch.randn(6, 16)
    real, sizes = quantise_weight(weight), quantise_weight(weight.to("meta"))
    assert [(x.shape, x.dtype) for x in sizes] == [(x.shape, x.dtype) for x in real]
