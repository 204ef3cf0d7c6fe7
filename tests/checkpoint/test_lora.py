"""Files of low-rank weights: each kind is the same weights, what does not fit is refused by name, and PEFT agrees."""

import json

import pytest
import torch
from checkpoint_helpers import DIT, FLOAT32
from helpers import relative_error
from lora_helpers import ALPHA, ATTENTION, NAMES, RANK, kohya_file, linears, matrices, peft_folder, plain_file
from safetensors.torch import load_file, save_file

from kandinsky.checkpoint.hub import Hub
from kandinsky.checkpoint.load import open_checkpoint
from kandinsky.checkpoint.lora import (
    LowRank,
    add_low_rank,
    fetch_lora,
    linears_of,
    lora_fingerprint,
    read_lora,
)
from kandinsky.errors import CheckpointError
from kandinsky.loading.components import load_dit


def same(one, other):
    return one.layers.keys() == other.layers.keys() and all(
        layer.scale == other.layers[name].scale
        and torch.equal(layer.up, other.layers[name].up)
        and torch.equal(layer.down, other.layers[name].down)
        for name, layer in one.layers.items()
    )


def test_every_kind_of_file_is_the_same_weights(tmp_path):
    folder = read_lora(peft_folder(tmp_path / "peft"), linears())
    assert set(folder.layers) == set(NAMES)
    assert {layer.scale for layer in folder.layers.values()} == {ALPHA / RANK}
    assert same(folder, read_lora(plain_file(tmp_path / "plain.safetensors"), linears()))
    assert same(folder, read_lora(kohya_file(tmp_path / "kohya.safetensors"), linears()))


def test_scales_of_peft(tmp_path):
    def scale(folder, **config):
        lora = read_lora(peft_folder(tmp_path / folder, **config), linears())
        return lora.layers[ATTENTION].scale, lora.layers[NAMES[1]].scale

    assert scale("rs", use_rslora=True) == (ALPHA / RANK**0.5,) * 2
    assert scale("pattern", alpha_pattern={"to_query_key_value": 2}) == (2 / RANK, ALPHA / RANK)


def test_without_alpha_the_product_is_added_as_it_is(tmp_path):
    tensors = {
        key: value for key, value in load_file(plain_file(tmp_path / "a.safetensors")).items() if "alpha" not in key
    }
    save_file(tensors, tmp_path / "b.safetensors")
    assert read_lora(tmp_path / "b.safetensors", linears()).layers[ATTENTION].scale == 1
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 2})}
    save_file(tensors, tmp_path / "c.safetensors", metadata)
    assert read_lora(tmp_path / "c.safetensors", linears()).layers[ATTENTION].scale == 2 / RANK


def test_fingerprints_tell_files_apart(tmp_path):
    one, other = (lora_fingerprint(plain_file(tmp_path / f"{seed}.safetensors", seed)) for seed in (0, 1))
    assert one != other
    assert one == read_lora(tmp_path / "0.safetensors", linears()).fingerprint
    folders = [lora_fingerprint(peft_folder(tmp_path / name, lora_alpha=a)) for name, a in (("x", 4), ("y", 8))]
    assert folders[0] != folders[1]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"use_dora": True}, "has use_dora"),
        ({"bias": "all"}, "has bias"),
        ({"modules_to_save": ["out_layer"]}, "has modules_to_save"),
        ({"peft_type": "LOHA"}, "peft_type='LOHA'; allowed is 'LORA'"),
        ({"lora_alpha": "much"}, "alpha of .* is no number"),
        ({"alpha_pattern": {"(": 3}}, "alpha of .* is no number"),
    ],
)
def test_configurations_that_are_refused(tmp_path, config, said):
    with pytest.raises(CheckpointError, match=said):
        read_lora(peft_folder(tmp_path / "lora", **config), linears())


def changed(tmp_path, change):
    tensors = load_file(plain_file(tmp_path / "good.safetensors"))
    change(tensors)
    save_file(tensors, tmp_path / "bad.safetensors")
    return tmp_path / "bad.safetensors"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop(f"{ATTENTION}.lora_A.weight"), f"without its other half: .*{ATTENTION}"),
        (
            lambda t: t.update({"blocks.0.q.lora_A.weight": torch.zeros(4, 8)}),
            "for no Linear of this model: .*blocks.0.q",
        ),
        (lambda t: t.update({f"{ATTENTION}.dora_scale": torch.zeros(4)}), "not of a kind that is read: .*dora_scale"),
        (lambda t: t.update({f"{ATTENTION}.lora_B.weight": torch.zeros(8, RANK)}), "of other sizes: 1 Linears, first"),
        (
            lambda t: t.update({f"{ATTENTION}.lora_B.weight": torch.zeros(8, 3)}),
            r"has matrices \(4, \d+\) and \(8, 3\)",
        ),
        (lambda t: t[f"{ATTENTION}.lora_B.weight"].fill_(float("nan")), "no finite numbers"),
        (
            lambda t: t.update({f"{ATTENTION}.lora_B.weight": 1e300 * t[f"{ATTENTION}.lora_B.weight"].double()}),
            "no finite numbers",
        ),
        (lambda t: t.update({f"{ATTENTION}.alpha": torch.tensor(float("nan"))}), f"the alpha of {ATTENTION} is nan"),
        (lambda t: t.update({f"{ATTENTION}.alpha": torch.tensor(float("inf"))}), f"the alpha of {ATTENTION} is inf"),
    ],
)
def test_keys_that_do_not_fit_are_named(tmp_path, change, said):
    with pytest.raises(CheckpointError, match=said):
        read_lora(changed(tmp_path, change), linears())


def test_matrices_of_eight_bits(tmp_path):
    file = plain_file(tmp_path / "a.safetensors")
    few = {key: value if "alpha" in key else value.to(torch.float8_e4m3fn) for key, value in load_file(file).items()}
    save_file(few, tmp_path / "b.safetensors")
    layer = read_lora(tmp_path / "b.safetensors", linears()).layers[ATTENTION]
    weight = torch.zeros(linears()[ATTENTION])
    expected = layer.scale * layer.up.float() @ layer.down.float()
    torch.testing.assert_close(add_low_rank(weight, [(layer, 1.0)], None), expected)
    few[f"{ATTENTION}.lora_A.weight"].view(torch.uint8)[0, 0] = 0x7F  # not a number
    save_file(few, tmp_path / "c.safetensors")
    with pytest.raises(CheckpointError, match="no finite numbers"):
        read_lora(tmp_path / "c.safetensors", linears())


def test_what_is_no_lora(tmp_path):
    save_file({"encoder.weight": torch.zeros(2, 2)}, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match="is no LoRA; it holds"):
        read_lora(tmp_path / "vae.safetensors", linears())
    (tmp_path / "lora.pt").write_bytes(b"x")
    with pytest.raises(CheckpointError, match=r"allowed is a .safetensors file"):
        read_lora(tmp_path / "lora.pt", linears())
    (tmp_path / "cut.safetensors").write_bytes(b"\x10")
    with pytest.raises(CheckpointError, match="truncated"):
        read_lora(tmp_path / "cut.safetensors", linears())
    with pytest.raises(FileNotFoundError, match="LoRA not found"):
        read_lora(tmp_path / "nowhere", linears())
    (tmp_path / "two").mkdir()
    for name in "ab":
        plain_file(tmp_path / "two" / f"{name}.safetensors")
    with pytest.raises(CheckpointError, match="has 2 safetensors files"):
        read_lora(tmp_path / "two", linears())


def test_a_weight_with_low_rank_weights(tmp_path):
    layer = read_lora(plain_file(tmp_path / "a.safetensors"), linears()).layers[ATTENTION]
    down, up = matrices()[ATTENTION]
    weight = torch.randn(linears()[ATTENTION], generator=torch.Generator().manual_seed(5))
    before = weight.clone()
    merged = add_low_rank(weight, [(layer, 0.5)], None)
    assert torch.equal(weight, before)
    torch.testing.assert_close(merged, weight + 0.5 * ALPHA / RANK * up @ down)
    half = add_low_rank(weight.bfloat16(), [(layer, 0.5)], None)
    exact = weight.bfloat16().double() + 0.5 * ALPHA / RANK * up.double() @ down.double()
    assert half.dtype == torch.bfloat16
    assert ((half.double() - exact).abs() <= exact.abs() * 2**-8).all()  # rounded once


def test_regions_of_a_weight(tmp_path):
    layer = read_lora(plain_file(tmp_path / "a.safetensors"), linears()).layers[ATTENTION]
    weight = torch.randn(linears()[ATTENTION], generator=torch.Generator().manual_seed(5))
    whole = add_low_rank(weight, [(layer, 1.0)], None)
    rows = [(slice(2, 5),), (slice(9, 12),)]
    part = add_low_rank(torch.cat([weight[r] for r in rows]), [(layer, 1.0)], rows)
    torch.testing.assert_close(part, torch.cat([whole[r] for r in rows]))
    columns = [(slice(None), slice(3, 9))]
    torch.testing.assert_close(add_low_rank(weight[columns[0]], [(layer, 1.0)], columns), whole[columns[0]])


@pytest.mark.gpu
def test_added_on_a_gpu():
    """Matrices of a file in any dtype, to a weight that is there."""
    weight = torch.randn(9, 5, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        down, up = (
            torch.randn(size, generator=torch.Generator().manual_seed(1)).to(dtype) for size in ((4, 5), (9, 4))
        )
        found = add_low_rank(weight.cuda(), [(LowRank(down, up, 0.5), 1.0)], None)
        torch.testing.assert_close(found.cpu(), weight + 0.5 * up.float() @ down.float())


def test_linears_of_a_checkpoint():
    shapes = {"a.weight": (3, 2), "norm.weight": (3,), "a.bias": (3,), "rope": (4, 4)}
    assert linears_of(shapes) == {"a": (3, 2)}


def test_a_repository(tmp_path):
    folder = peft_folder(tmp_path / "repo")
    hub = Hub(check_reachable=lambda: None, fetch_cached=lambda *_args, **_options: folder)
    assert fetch_lora("owner/name", weight_name=None, revision=None, hub=hub) == folder
    with pytest.raises(FileNotFoundError, match=r"has no file 'other.safetensors'"):
        fetch_lora("owner/name", weight_name="other.safetensors", revision=None, hub=hub)

    def offline():
        raise OSError("no network")

    with pytest.raises(FileNotFoundError, match="nor found on the hub"):
        fetch_lora("owner/name", weight_name=None, revision=None, hub=Hub(check_reachable=offline))


def test_peft_computes_the_same(tmp_path):
    """PEFT reads the folder and runs its layers around the plain DiT in float32; ours is merged."""
    from peft import PeftConfig, inject_adapter_in_model, set_peft_model_state_dict

    folder = peft_folder(tmp_path / "lora")
    checkpoint = open_checkpoint(DIT)
    merged, plain = (load_dit(checkpoint, **FLOAT32) for _ in range(2))
    generator = torch.Generator().manual_seed(3)
    visual, text = torch.randn(3, 4, 6, 16, generator=generator), torch.randn(7, 64, generator=generator)
    time = torch.tensor([749])
    before = plain(visual, text, time)
    for name, layer in read_lora(folder, linears_of(checkpoint.shapes)).layers.items():
        linear = merged.get_submodule(name)
        linear.weight.data = add_low_rank(linear.weight.data, [(layer, 1.0)], None)
    inject_adapter_in_model(PeftConfig.from_pretrained(folder), plain)
    result = set_peft_model_state_dict(plain, load_file(folder / "adapter_model.safetensors"))
    assert not result.unexpected_keys
    with torch.no_grad():
        expected, found = plain(visual, text, time), merged(visual, text, time)
    assert relative_error(found, expected) < 1e-6
    assert relative_error(before, expected) > 1e-2
