"""Names of low-rank weights: every way of writing one Linear, and what belongs to nothing."""

import pytest
from lora_helpers import ATTENTION, linears

from kandinsky.checkpoint.lora_names import grouped

FLAT = ATTENTION.replace(".", "_")


@pytest.mark.parametrize(
    "pair",
    [
        (f"base_model.model.{ATTENTION}.lora_A.weight", f"base_model.model.{ATTENTION}.lora_B.weight"),
        (f"transformer.{ATTENTION}.lora_A.default.weight", f"transformer.{ATTENTION}.lora_B.default.weight"),
        (f"diffusion_model.{ATTENTION}.lora_down.weight", f"diffusion_model.{ATTENTION}.lora_up.weight"),
        (f"{ATTENTION}.lora.down.weight", f"{ATTENTION}.lora.up.weight"),
        (f"lora_unet_{FLAT}.lora_down.weight", f"lora_unet_{FLAT}.lora_up.weight"),
        (f"lora_transformer_{FLAT}.lora_A.weight", f"lora_transformer_{FLAT}.lora_B.weight"),
    ],
)
def test_every_way_of_writing_a_name(pair):
    found = grouped(pair, linears())
    assert found.layers == {ATTENTION: {"down": pair[0], "up": pair[1]}}
    assert (found.elsewhere, found.unknown, found.incomplete) == ([], [], [])


def test_what_does_not_fit_is_told_apart():
    names = [
        f"{ATTENTION}.lora_A.weight",
        "blocks.0.attn.lora_A.weight",
        "lora_te_text_model_layers_0.lora_down.weight",
        f"{ATTENTION}.lora_magnitude_vector",
        "conv.weight",
    ]
    found = grouped(names, linears())
    assert found.incomplete == names[:1]
    assert found.elsewhere == names[1:3]
    assert found.unknown == names[3:]
