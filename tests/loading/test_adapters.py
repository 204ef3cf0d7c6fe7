"""Low-rank weights in parts: merged in every place where weights live, and taken out to the bit."""

from dataclasses import replace

import pytest
import torch
from checkpoint_helpers import DIT
from helpers import TINY
from lora_helpers import ATTENTION, MODULATION, NAMES, linears, plain_file
from rank_processes import SHAPE, run_together

from kandinsky.checkpoint.lora import read_lora
from kandinsky.factory import get_T2V_pipeline
from kandinsky.loading.adapters import with_adapters
from kandinsky.loading.parts import Adapter
from kandinsky.memory.modes import MODES, home_of_dit
from kandinsky.model.precision import EXACT
from kandinsky.model.quantised import quantise_weight
from kandinsky.pipeline import Kandinsky4T2VPipeline
from kandinsky.video_shape import VideoShape

CPU = torch.device("cpu")
CALL = {"time_length": 1, "width": 64, "height": 64, "seed": 3, "output_type": "latent"}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("loras")
    return [plain_file(folder / f"{seed}.safetensors", seed) for seed in range(2)]


@pytest.fixture(scope="module")
def adapters(files):
    return [Adapter(read_lora(file, linears()), weight) for file, weight in zip(files, (1.0, -0.5), strict=True)]


@pytest.fixture(params=["resident", "staged", "blocks"])
def parts(request, small_weights):
    """Of a pipeline of its own; on a CPU a stream of blocks copies from host to host."""
    parts = get_T2V_pipeline("cpu", cache_dir=small_weights, progress=False).parts
    home = home_of_dit(parts.dit, CPU, mode=MODES[request.param], precision=EXACT)
    return replace(parts, dit_home=home)


def parts_as_in_the_file(weights):
    """Of a pipeline of its own, in the file's dtype."""
    return get_T2V_pipeline("cpu", cache_dir=weights, dtype=torch.bfloat16, progress=False).parts


def latents_of(parts):
    return Kandinsky4T2VPipeline(parts)("a cat", **CALL)


def weights_of(parts):
    return {name: value.clone() for name, value in parts.dit.state_dict().items()}


def test_merged_and_taken_out_to_the_bit(parts, adapters, pipe):
    plain = pipe("a cat", **CALL)
    before, table = weights_of(parts), parts.modulation.blocks.clone()
    assert torch.equal(latents_of(parts), plain)
    merged = with_adapters(parts, {"a": adapters[0], "b": adapters[1]})
    first = latents_of(merged)
    changed = {name for name, value in weights_of(merged).items() if not torch.equal(value, before[name])}
    assert changed == {f"{name}.weight" for name in NAMES}
    assert not torch.equal(first, plain)
    assert not torch.equal(merged.modulation.blocks, table)
    other = with_adapters(merged, {"b": adapters[1]})
    assert not torch.equal(latents_of(other), first)
    again = with_adapters(other, {"a": adapters[0], "b": adapters[1]})
    assert torch.equal(latents_of(again), first)
    out = with_adapters(again, {"a": replace(adapters[0], weight=0.0)})
    assert all(torch.equal(value, before[name]) for name, value in weights_of(out).items())
    assert torch.equal(out.modulation.blocks, table)
    assert torch.equal(latents_of(out), plain)


def test_the_file_is_not_written_to(small_weights, adapters):
    before = DIT.read_bytes()
    parts = get_T2V_pipeline("cpu", cache_dir=small_weights, progress=False).parts
    with_adapters(parts, {"a": adapters[0]})
    name = f"{ATTENTION}.weight"
    assert DIT.read_bytes() == before
    fresh = torch.load(DIT, weights_only=True)[name]
    assert torch.equal(parts.base.checkpoint.tensor(name, CPU), fresh)


@pytest.mark.slow
def test_all_modes_compute_the_same(small_weights, adapters):
    """The sum of two adapters, resident and streamed."""
    found = []
    for mode in MODES.values():
        parts = parts_as_in_the_file(small_weights)
        checkpoint = parts.base.checkpoint
        home = home_of_dit(parts.dit, CPU, mode=mode, precision=EXACT, checkpoint=checkpoint)
        parts = replace(parts, dit_home=home)
        found.append(latents_of(with_adapters(parts, dict(enumerate(adapters)))))
    assert all(torch.equal(each, found[0]) for each in found)


@pytest.mark.slow
def test_blocks_that_come_from_the_file_each_time(small_weights, adapters):
    """They stay as the file has them; low-rank weights are added whenever they come, and not any more afterwards."""
    one = {"a": adapters[0]}
    parts = parts_as_in_the_file(small_weights)
    plain = latents_of(parts)
    expected = latents_of(with_adapters(parts, one))
    parts = parts_as_in_the_file(small_weights)
    home = home_of_dit(parts.dit, CPU, mode=MODES["disk"], precision=EXACT, checkpoint=parts.base.checkpoint)
    before, merged = weights_of(parts), with_adapters(replace(parts, dit_home=home), one)
    for _ in range(2):
        assert torch.equal(latents_of(merged), expected)
    at_home = {name for name, value in weights_of(merged).items() if not torch.equal(value, before[name])}
    assert at_home == {f"{name}.weight" for name in NAMES if "transformer_blocks" not in name or "modulation" in name}
    assert torch.equal(latents_of(with_adapters(merged, {})), plain)


class Float8(torch.nn.Module):
    """What a float8 Linear holds; its product needs a GPU."""

    def __init__(self, linear):
        super().__init__()
        weight, scale = quantise_weight(linear.weight)
        self.register_buffer("weight", weight)
        self.register_buffer("scale", scale)


def test_float8_is_quantised_anew(small_weights, adapters):
    parts = get_T2V_pipeline("cpu", cache_dir=small_weights, progress=False).parts
    owner, _, leaf = ATTENTION.rpartition(".")
    exact = parts.dit.get_submodule(ATTENTION)
    stored = Float8(exact)
    before = (stored.weight.clone(), stored.scale.clone())
    setattr(parts.dit.get_submodule(owner), leaf, stored)
    parts = replace(parts, base=replace(parts.base, quantise=quantise_weight))
    merged = with_adapters(parts, {"a": adapters[0]})
    layer = adapters[0].lora.layers[ATTENTION]
    whole = exact.weight + layer.scale * layer.up @ layer.down
    expected = quantise_weight(whole)
    torch.testing.assert_close(stored.scale, expected[1])
    torch.testing.assert_close(stored.weight.float(), expected[0].float(), atol=0.0, rtol=0.13)  # a rounding apart
    with_adapters(merged, {})
    assert torch.equal(stored.weight.view(torch.uint8), before[0].view(torch.uint8))
    assert torch.equal(stored.scale, before[1])


def test_parts_that_were_put_together_by_hand_are_refused(parts, adapters):
    with pytest.raises(ValueError, match="was not loaded from a file with exact weights"):
        with_adapters(replace(parts, base=None), {"a": adapters[0]})


def test_records_tell(parts, adapters):
    origin = with_adapters(parts, {"a": adapters[0], "b": replace(adapters[1], weight=0.0)}).origin
    assert dict(origin.loras) == {"a": adapters[0].lora.fingerprint}
    assert dict(origin.lora_weights) == {"a": "1.0"}


def test_modulation_alone(parts, tmp_path):
    """Its layers are on the host after loading."""
    lora = read_lora(plain_file(tmp_path / "m.safetensors", names=(MODULATION,)), linears())
    table = parts.modulation.blocks
    merged = with_adapters(parts, {"m": Adapter(lora, 1.0)})
    differs = [not torch.equal(one, other) for one, other in zip(merged.modulation.blocks[0], table[0], strict=True)]
    assert differs == [False, False, True, False]
    assert torch.equal(with_adapters(merged, {}).modulation.blocks, table)


def gpu_latents(file, memory, precision):
    """Before low-rank weights are merged, with them, and after."""
    pipe = get_T2V_pipeline(
        "cuda:0", cache_dir=TINY, memory=memory, precision=precision, attention="bounded", progress=False
    )
    text, shape = pipe.encode("a cat"), VideoShape.from_request(1, 672, 384)
    found = [pipe.sample(text, shape, seed=1).cpu()]
    pipe.load_lora_weights(file)
    found.append(pipe.sample(text, shape, seed=1).cpu())
    pipe.unload_lora_weights()
    return [*found, pipe.sample(text, shape, seed=1).cpu()]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_every_mode_on_a_gpu(precision, files):
    """The plain weights' bits before and after, and in all modes the same with low-rank ones."""
    resident = gpu_latents(files[0], "resident", precision)
    assert torch.equal(resident[0], resident[2])
    assert not torch.equal(resident[0], resident[1])
    for memory in ("staged", "blocks") if precision == "fast" else ("staged", "blocks", "disk"):
        found = gpu_latents(files[0], memory, precision)
        assert all(torch.equal(one, other) for one, other in zip(found, resident, strict=True))


@pytest.fixture(scope="module")
def ranks(tmp_path_factory, small_weights):
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "weights").symlink_to(small_weights)
    plain_file(folder / "lora.safetensors")
    return run_together(2, folder, ["adapters"])


@pytest.mark.slow
@pytest.mark.parametrize("parallelism", ["tensor", "sequence"])
def test_two_ranks(parallelism, ranks, files, small_weights):
    """Each merges its part: together they make what one process makes, and without it the plain weights' bits."""
    found = [rank["adapters"][parallelism] for rank in ranks]
    assert all(torch.equal(rank["before"], rank["after"]) for rank in found)
    one = get_T2V_pipeline("cpu", cache_dir=small_weights, loras={files[0]: 1.0}, progress=False)
    expected = one.sample(one.encode("a cat"), SHAPE, seed=3)
    torch.testing.assert_close(found[0]["merged"], expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(found[0]["merged"], found[0]["before"])
