"""Linears in float8."""

import pytest
import torch
import torch.nn.functional as F
from helpers import relative_error
from model_helpers import SMALL_DIT
from torch import nn

from kandinsky.checkpoint.random_weights import random_dit

pytestmark = pytest.mark.gpu


def test_a_float8_linear_is_near_the_exact_one():
    from kandinsky.model.float8 import Float8Linear

    linear = nn.Linear(3072, 768, device="cuda", dtype=torch.bfloat16).requires_grad_(False)
    x = torch.randn(1001, 3072, device="cuda", dtype=torch.bfloat16)
    exact = F.linear(x.float(), linear.weight.float(), linear.bias.float())
    assert relative_error(Float8Linear(linear)(x), exact) < 0.06


def test_the_linears_of_a_block_are_replaced_once():
    """Those of the modulation, which is computed once for a schedule, stay."""
    from kandinsky.model.float8 import Float8Linear, quantise_block_

    block = random_dit(SMALL_DIT, torch.Generator("cuda").manual_seed(1)).blocks[0]
    quantise_block_(block)
    replaced = {name: part for name, part in block.named_modules() if isinstance(part, Float8Linear)}
    assert set(replaced) == {
        "self_attention.to_query_key_value",
        "self_attention.output_layer",
        "feed_forward.in_layer",
        "feed_forward.out_layer",
    }
    quantise_block_(block)
    assert all(block.get_submodule(name) is part for name, part in replaced.items())
