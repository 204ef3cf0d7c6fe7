"""diffusers' names for low-rank weights: load, weigh, unload; what is refused changes nothing."""

import pytest
import torch
from lora_helpers import peft_folder, plain_file
from safetensors.torch import save_file

from kandinsky.errors import CheckpointError
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.adaptable import Adaptable

CALL = {"time_length": 0, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}


@pytest.fixture
def own(pipe):
    """The session's pipeline, given back as it was."""
    yield pipe
    pipe.unload_lora_weights()


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    return [plain_file(folder / "one.safetensors", 0), peft_folder(folder / "two", 1)]


def test_the_whole_life_of_adapters(own, files):
    plain = own("a cat", **CALL)
    own.load_lora_weights(files[0])
    own.load_lora_weights(files[1], adapter_name="second", weight=0.5)
    assert own.loras == {"one": 1.0, "second": 0.5}
    both = own("a cat", **CALL)
    own.set_adapters("second")
    assert own.loras == {"one": 0.0, "second": 1.0}
    own.set_adapters(["one", "second"], [1.0, 0.5])
    assert torch.equal(own("a cat", **CALL), both)
    own.set_adapters([])
    assert own.loras == {"one": 0.0, "second": 0.0}
    assert torch.equal(own("a cat", **CALL), plain)
    own.set_adapters(["one", "second"], 0.7)
    assert own.loras == {"one": 0.7, "second": 0.7}
    own.unload_lora_weights()
    assert own.loras == {}
    assert torch.equal(own("a cat", **CALL), plain)


def test_adapters_from_the_beginning(small_weights, own, files):
    own.load_lora_weights(files[0], weight=0.5)
    pipe = get_T2V_pipeline("cpu", cache_dir=small_weights, loras={files[0]: 0.5}, progress=False)
    assert pipe.loras == {"one": 0.5}
    assert torch.equal(pipe("a cat", **CALL), own("a cat", **CALL))
    moved = pipe.to("cpu")
    assert moved.loras == {"one": 0.5}
    assert torch.equal(moved("a cat", **CALL), own("a cat", **CALL))
    moved.unload_lora_weights()
    own.unload_lora_weights()
    assert torch.equal(moved("a cat", **CALL), own("a cat", **CALL))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda pipe, file: pipe.load_lora_weights(file, weight="much"), "weight='much': allowed is a finite number"),
        (lambda pipe, file: pipe.load_lora_weights(file, weight=float("inf")), "weight=inf"),
        (lambda pipe, file: pipe.load_lora_weights(file, adapter_name=""), "adapter_name='': allowed is a text"),
        (lambda pipe, file: pipe.load_lora_weights(file), "adapter_name='one': is loaded already"),
        (lambda pipe, _: pipe.set_adapters("nobody"), "LoRA 'nobody' is not loaded; loaded are 'one'"),
        (lambda pipe, _: pipe.set_adapters(["one"], [1, 2]), "allowed is one for each of the names"),
        (lambda pipe, _: pipe.set_adapters("one", float("nan")), "weight of one=nan"),
        (
            lambda pipe, _: pipe.set_adapters("one", 1e300),
            r"weight of one=1e\+300: allowed is a finite number of float32",
        ),
        (lambda pipe, _: pipe.set_adapters("one", 10**400), "weight of one=1000.*: allowed is a finite number"),
        (lambda pipe, _: pipe.set_adapters(3), "names=3: allowed is the name of a LoRA, or a list"),
        (lambda pipe, _: pipe.set_adapters([["one"]]), r"names=\[\['one'\]\]: allowed is the name"),
    ],
)
def test_what_is_refused_changes_nothing(own, files, call, said):
    own.load_lora_weights(files[0])
    before = own.parts
    with pytest.raises(ValueError, match=said):
        call(own, files[0])
    assert own.parts is before


def test_a_lora_of_another_model(own, tmp_path):
    save_file({"blocks.0.q.lora_A.weight": torch.zeros(2, 2)}, tmp_path / "x.safetensors")
    with pytest.raises(
        CheckpointError, match=r"for no Linear of this model: 1 tensors, first 'blocks.0.q.lora_A.weight'"
    ):
        own.load_lora_weights(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="for no Linear of this model"):
        get_T2V_pipeline("cpu", cache_dir="tests/weights", loras={tmp_path / "x.safetensors": 1.0}, progress=False)
    assert own.loras == {}


def test_two_files_of_one_name(small_weights, files, tmp_path):
    other = plain_file(tmp_path / "one.safetensors", 2)
    with pytest.raises(ValueError, match="two are named 'one'"):
        get_T2V_pipeline("cpu", cache_dir=small_weights, loras={files[0]: 1.0, other: 1.0}, progress=False)


def test_a_pipeline_is_adaptable(pipe):
    assert isinstance(pipe, Adaptable)
