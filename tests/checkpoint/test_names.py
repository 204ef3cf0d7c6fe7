"""Names as users' files have them; what is not clear stays an error."""

import pytest
import torch
from checkpoint_helpers import dit_state

from kandinsky.checkpoint.names import described, own_names, state_dict_in

STATE = {"a.weight": torch.zeros(2), "b.bias": torch.zeros(1)}
DIT = list(dit_state())
MODULATION = "transformer_blocks.0.1.text_modulation.out_layer.weight"


@pytest.mark.parametrize(
    ("content", "wrappers", "beside"),
    [
        (STATE, (), []),
        ({"state_dict": STATE}, ("state_dict",), []),
        ({"ema": STATE, "step": 5}, ("ema",), ["step"]),
        ({"model": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}}}, ("model",), ["optimizer"]),
        ({"module": {"state_dict": STATE, "epoch": 1}, "lr": 0.1}, ("module", "state_dict"), ["lr", "epoch"]),
        ({"model": STATE, "rng": {"cpu": torch.zeros(2)}, "step": torch.tensor(3)}, ("model",), ["rng", "step"]),
        ({**STATE, "epoch": 3}, (), ["epoch"]),
        ({**STATE, "ema": {"a.weight": torch.ones(2)}}, (), ["ema"]),
        ({"weight": torch.zeros(2)}, (), []),
    ],
)
def test_state_dict_within_other_things(content, wrappers, beside):
    found, around, rest = state_dict_in(content)
    assert (around, rest) == (wrappers, beside)
    assert found.keys() == (content if content.keys() == {"weight"} else STATE).keys()
    assert all(isinstance(value, torch.Tensor) for value in found.values())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": STATE, "ema": STATE}, "holds several state dicts: 'model', 'ema'"),
        ([1, 2], "is not a state dict: expected a mapping from names to tensors, found a list of 2"),
        ({"epoch": 3, "args": {"lr": 1}}, r"is not a state dict: .* found 'epoch' \(a int\), 'args' \(a dict of 1\)"),
        ({"shadow_params": [torch.zeros(1)]}, r"found 'shadow_params' \(a list of 1\)"),
        ({}, "found nothing"),
    ],
)
def test_no_state_dict(content, message):
    with pytest.raises(ValueError, match=message):
        state_dict_in(content)


@pytest.mark.parametrize(
    ("prefix", "taken"),
    [
        ("module.", ["module."]),
        ("model.", ["model."]),
        ("_orig_mod.", ["_orig_mod."]),
        ("module._orig_mod.", ["_orig_mod.", "module."]),
        ("_orig_mod.module.model.", ["_orig_mod.", "model.", "module."]),
        ("model._orig_mod.diffusion_model.", ["_orig_mod.", "model.diffusion_model."]),
        ("student.", ["student."]),
    ],
)
def test_prefixes(prefix, taken):
    assert own_names([prefix + name for name in DIT]) == ({name: prefix + name for name in DIT}, taken)


def test_own_names_stay():
    assert own_names(DIT) == ({name: name for name in DIT}, [])
    assert own_names(["encoder.final_layer_norm.weight", "decoder.x"])[1] == []
    assert own_names(["a", "model.b"]) == ({"a": "a", "model.b": "model.b"}, [])


def test_wrappers_within_a_name():
    """`torch.compile` and FSDP of single blocks."""
    inside = {name: name.replace("0.0.", "0._orig_mod.0._fsdp_wrapped_module.") for name in DIT}
    assert own_names(inside.values()) == (inside, ["_fsdp_wrapped_module.", "_orig_mod."])


def test_names_without_the_prefix_stay_beside_it():
    names = [f"model.{name}" for name in DIT[1:]] + [DIT[0], "optimizer.step"]
    found, taken = own_names(names)
    assert found == {**{name: f"model.{name}" for name in DIT[1:]}, DIT[0]: DIT[0], "optimizer.step": "optimizer.step"}
    assert taken == ["model."]


def test_a_second_set_behind_a_prefix_is_only_extra():
    names = [*DIT, *(f"ema.{name}" for name in DIT), *(f"module.{name}" for name in DIT)]
    assert own_names(names) == ({name: name for name in names}, [])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [f"{before}.{name}" for before in ("ema", "model") for name in DIT],
            "a Kandinsky 4 DiT more than once, under 'e",
        ),
        (["module.a.weight", "_orig_mod.a.weight"], "holds 'a.weight' twice, as 'module.a.weight' and '_orig_mod.a.w"),
    ],
)
def test_what_is_ambiguous_is_refused(names, message):
    with pytest.raises(ValueError, match=message):
        own_names(names)


@pytest.mark.parametrize(
    ("names", "what"),
    [
        ([MODULATION.replace("weight", "lora_A.weight")], "it looks like a LoRA: 1 tensors, first 'tr"),
        (
            ["lora_unet_blocks_0.lora_down.weight", "b", "c", "d"],
            "it looks like a LoRA: 4 tensors, first 'lo.*, 'b', 'c'$",
        ),
        (["encoder.block.3.layer.0.SelfAttention.q.weight"], "it looks like a T5 text encoder"),
        (["decoder.mid_block.resnets.0.conv1.weight"], "it looks like a VAE"),
        (["transformer_blocks.0.attn1.to_q.weight"], "it looks like a diffusion model of another kind"),
        ([MODULATION], "it looks like a Kandinsky 4 DiT"),
        (["text_model.embeddings.weight"], "it looks like a CLIP model"),
        (["0.exp_avg"], "it looks like the state of an optimiser"),
        (["weight"], "it holds 1 tensors, first 'weight'$"),
        ([], "it holds 0 tensors$"),
    ],
)
def test_what_a_file_holds(names, what):
    import re

    assert re.match(what, described(names))
